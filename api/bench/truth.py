"""The truth that tokens are judged by: the reference backend in float32, fed whole sequences.

Of an engine with quantised weights it is the truth about those weights that is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...core.batch_builder import BatchBuilder
from ...core.checkpoint import Checkpoint
from ...core.interfaces import ModelRunner, RunnerConfig
from ...core.quantization import SCHEMES
from ...core.rounded import RoundedCheckpoint
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
    """The reference backend, its sums left to BLAS so that it is fast enough. Raises what loading a backend raises.

    With `quantization` it computes with the numbers that quantised weights stand for.
    """

    def __init__(self, folder: Path, plugins: Plugins, max_model_len: int, quantization: str | None = None) -> None:
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
        checkpoint = RoundedCheckpoint(folder, quantization) if quantization else Checkpoint.open(folder)
        self._runner: ModelRunner = plugins.backends.get_factory(TRUTH)().load(checkpoint, config)

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


class Truths:
    """The truth about quantised weights, made when it is first asked for; kinds that store the same weights share one.

    `tell` hears of each before it is made, for that takes some seconds.
    """

    def __init__(self, make: Callable[[str], Truth], tell: Callable[[str], None] = lambda _: None) -> None:
        self._make, self._tell = make, tell
        self._known: dict[tuple[object, ...], Truth] = {}

    def __call__(self, quantization: str) -> Truth | None:
        """The truth about weights of that kind; None for one that isotoken does not define, such as a plugin's."""
        scheme = SCHEMES.get(quantization)
        if scheme is None or scheme.weight_type != "integer" or scheme.scale_for == "matrix":
            return None
        key = scheme.weight_bits, scheme.scale_for, scheme.group_size
        if key not in self._known:
            self._tell(f"loading the reference with {quantization} weights, which judges them")
            self._known[key] = self._make(quantization)
        return self._known[key]

    def close(self) -> None:
        """Give the memory back."""
        for truth in self._known.values():
            truth.close()
