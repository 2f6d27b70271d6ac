"""Checkpoint: a model folder in Hugging Face layout, its weights as memory-mapped numpy views under canonical names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decoder_spec import DecoderSpec

Array = NDArray[Any]


class Checkpoint:
    """An opened model folder. Opening validates everything that can be checked without reading the weights."""

    path: Path
    spec: DecoderSpec
    dtype: str  # of most weights: "bfloat16", "float16", "float32"
    eos_token_ids: frozenset[int]  # of generation_config.json, else config.json
    num_bytes: int  # of all tensors

    @classmethod
    def open(cls, path: Path | str, *, on_read: Callable[[str, int], None] | None = None) -> Checkpoint:
        """Read config, headers and index; check every tensor's presence, shape, dtype and extent.

        `on_read(name, num_bytes)` is called as each tensor is handed out, for progress bars.
        Raises CheckpointError naming the file and the tensor, before any memory is committed.
        """
        raise NotImplementedError

    def names(self) -> Iterator[str]:
        """Canonical names of all tensors that the spec calls for, in layer order (a tied lm_head is not listed)."""
        raise NotImplementedError

    def tensor(self, name: str) -> Array:
        """A read-only view of one tensor in its stored dtype (bfloat16 through ml_dtypes). No copy."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """Identity by headers, sizes and times: cheap, changes when a file is replaced."""
        raise NotImplementedError

    def content_hash(self) -> str:
        """sha256 over config and every tensor's bytes: reads everything."""
        raise NotImplementedError


_ = np
