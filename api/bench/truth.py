"""The truth that tokens are judged by: the reference backend in float32, fed whole sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...core.batch_builder import BatchBuilder
from ...core.checkpoint import Checkpoint
from ...core.interfaces import ModelRunner, RunnerConfig
from ...core.types import DecodeParams, Request, Scheduled
from ...plugins.manager import Plugins

Float32 = NDArray[np.float32]

TRUTH = "reference"
"""The backend whose word counts."""


class Oracle(Protocol):
    """Somebody who knows the logits."""

    def logits(self, prompt: list[int], tokens: list[int]) -> Float32:
        """The logits [len(tokens), V] from which each of `tokens` was to be drawn, those before it being given."""
        ...


class Truth:
    """The reference backend, its sums left to BLAS so that it is fast enough. Raises what loading a backend raises."""

    def __init__(self, folder: Path, plugins: Plugins, max_model_len: int) -> None:
        config = RunnerConfig(
            dtype="float32",
            device="cpu",
            max_model_len=max_model_len,
            max_num_seqs=1,
            max_num_batched_tokens=max_model_len,
            block_size=max_model_len,
            num_blocks=1,
            options={"sums": "blas"},
        )
        self._runner: ModelRunner = plugins.backends.get_factory(TRUTH)().load(Checkpoint.open(folder), config)

    def logits(self, prompt: list[int], tokens: list[int]) -> Float32:
        """Compute the whole sequence in one forward."""
        ids = prompt + tokens[:-1]
        params = DecodeParams(max_tokens=len(tokens), temperature=0.0)
        request = Request(id="truth", token_ids=ids, num_prompt_tokens=len(ids), params=params, block_ids=[0], row_id=0)
        info = self._runner.info
        builder = BatchBuilder(max_num_seqs=1, block_size=info.block_size, vocab_size=info.vocab_size)
        batch = builder.build([Scheduled(request, 0, len(ids), 0, len(tokens))])
        return np.asarray(self._runner.forward(batch), np.float32)

    def close(self) -> None:
        """Give the memory back."""
        self._runner.close()
