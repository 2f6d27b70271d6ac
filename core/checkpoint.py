"""Checkpoint: a model folder in Hugging Face layout, its weights as memory-mapped numpy views under canonical names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decoder_spec import DecoderSpec
from .packed_format import PackedFormat, read_packed_format
from .packed_weights import PackedWeight, QuantizedGrid, QuantizedMatrix
from .places import Place, TensorLocation, locate
from .shards import open_shards, read_json
from .types import CheckpointError

__all__ = ["Checkpoint", "QuantizedGrid", "QuantizedMatrix", "TensorLocation"]

Array = NDArray[Any]


class Checkpoint:
    """An opened model folder. Opening validates everything that can be checked without reading the weights."""

    path: Path
    config: Mapping[str, Any]  # config.json as it stands
    spec: DecoderSpec
    dtype: str  # of most weights, by bytes: "bfloat16", "float16", "float32"; of packed ones that of their scales
    eos_token_ids: frozenset[int]  # of generation_config.json, else config.json; only ids within the vocabulary
    num_bytes: int  # of all tensors that names() lists
    unused_names: tuple[str, ...]  # tensors in the files that the spec does not call for

    def __init__(self, path: Path, on_read: Callable[[str, int], None] | None = None) -> None:
        """Use Checkpoint.open."""
        self.path = path
        self._on_read = on_read
        self._read: set[str] = set()
        self.config = read_json(path / "config.json", missing="a model folder has a config.json in Hugging Face layout")
        try:
            self.spec = DecoderSpec.from_config(self.config)
            self._packing = read_packed_format(self.config)
        except CheckpointError as error:
            raise CheckpointError(f"{path / 'config.json'}: {error}") from error
        self.eos_token_ids = _eos_token_ids(path, self.config, self.spec.vocab_size)
        holders = open_shards(path)
        self._files = list(dict.fromkeys(holders.values()))
        self._places = locate(self.spec, path, holders, self._packing)
        used = {name for place in self._places.values() for name in place.tensor_names}
        self.unused_names = tuple(name for name in holders if name not in used)
        sizes: dict[str, int] = {}
        for place in self._places.values():
            sizes[place.dtype] = sizes.get(place.dtype, 0) + place.num_bytes
        self.dtype = max(sizes, key=lambda dtype: sizes[dtype])
        self.num_bytes = sum(sizes.values())

    @classmethod
    def open(cls, path: Path | str, *, on_read: Callable[[str, int], None] | None = None) -> Checkpoint:
        """Read config, headers and index; check every tensor's presence, shape, dtype and extent.

        `on_read(name, num_bytes)` is called as each tensor is first handed out, for progress bars: num_bytes in all.
        Raises CheckpointError naming the file and the tensor, before any memory is committed.
        """
        path = Path(path)
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise CheckpointError(f"{path}: {what}; expected a model folder with config.json and *.safetensors")
        return cls(path, on_read)

    @property
    def packing(self) -> PackedFormat | None:
        """How the matrices are packed in a checkpoint that is quantised as GPTQ or AWQ, else None."""
        return self._packing

    def names(self) -> Iterator[str]:
        """Canonical names of all tensors that the spec calls for, in layer order (a tied lm_head is not listed)."""
        return iter(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor, packed or not. Reads nothing. Raises KeyError as `tensor` does."""
        return self._place(name).shape

    def is_packed(self, name: str) -> bool:
        """Whether one tensor is stored as quantised numbers, so that it has no `location`. Raises KeyError likewise."""
        return isinstance(self._place(name), PackedWeight)

    def location(self, name: str) -> TensorLocation:
        """Where one tensor's bytes lie: `tensor(name)` for those who read the file themselves. Reads nothing.

        A part of a fused tensor (rows, or one expert of a stack) is contiguous too. A tied lm_head is embed_tokens.
        Raises KeyError for a name that the spec does not call for, ValueError for a packed tensor.
        """
        place = self._place(name)
        if isinstance(place, PackedWeight):
            raise ValueError(f"{self.path}: {name} is packed ({place.form}): nowhere is it as tensor() has it")
        return place.location()

    def tensor(self, name: str) -> Array:
        """A read-only view of one tensor in its stored dtype (bfloat16 through ml_dtypes). No copy.

        Of a packed tensor: float32, unpacked anew at each call, exactly what the numbers stand for.
        A tied lm_head is embed_tokens. Raises KeyError for a name that the spec does not call for.
        """
        place = self._place(name)
        array = place.dequantized() if isinstance(place, PackedWeight) else place.view()
        self._report(name, place)
        return array

    def quantized(self, name: str) -> QuantizedMatrix | None:
        """A packed tensor as whole numbers and their scales, unpacked anew at each call.

        None for a tensor that is not packed, and for the rare one that does not come out so (numbers beyond 8 bits,
        groups that differ in size): use `tensor` then. Raises KeyError as `tensor` does.
        """
        place = self._place(name)
        if not isinstance(place, PackedWeight) or (matrix := place.quantized()) is None:
            return None
        self._report(name, place)
        return matrix

    def grid(self, name: str) -> QuantizedGrid | None:
        """Return what `quantized` will be like, from its scales and zero points alone: to plan memory by.

        None where `quantized` is for certain. Raises KeyError as `tensor` does.
        """
        place = self._place(name)
        return place.grid() if isinstance(place, PackedWeight) else None

    def _report(self, name: str, place: Place) -> None:
        """Tell on_read of a tensor that is handed out for the first time."""
        name = self._canonical(name)
        if self._on_read is not None and name not in self._read:
            self._read.add(name)
            self._on_read(name, place.num_bytes)

    def _canonical(self, name: str) -> str:
        return "embed_tokens" if name == "lm_head" and self.spec.tied_embeddings else name

    def _place(self, name: str) -> Place:
        place = self._places.get(self._canonical(name))
        if place is None:
            raise KeyError(f"{self.path}: {self.spec.architecture} has no tensor {name!r}")
        return place

    @property
    def key(self) -> str:
        """Identity by config, headers, sizes and times as they were at open: cheap, changes when a file is replaced."""
        digest = hashlib.sha256(_canonical_json(self.config))
        for file in self._files:
            digest.update(f"{file.path.name}\0{file.size}\0{file.modified_ns}\0".encode())
            digest.update(file.header)
        return digest.hexdigest()

    def content_hash(self) -> str:
        """sha256 over config.json and every tensor's name, dtype, shape and bytes: reads everything.

        The same however the tensors are spread over files.
        """
        digest = hashlib.sha256(_canonical_json(self.config))
        for name, place in self._places.items():
            for part, array in place.arrays():
                digest.update(f"{name}{part}\0{array.dtype.name}\0{array.shape}\0".encode())
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()


def _canonical_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _eos_token_ids(path: Path, config: Mapping[str, Any], vocab_size: int) -> frozenset[int]:
    """Read one id or a list of ids. Ids outside of the vocabulary can never be drawn and are left out."""
    file = path / "generation_config.json"
    ids = read_json(file, missing="").get("eos_token_id") if file.exists() else None
    if ids is None:
        file, ids = path / "config.json", config.get("eos_token_id")
    if ids is None:
        return frozenset()
    listed = ids if isinstance(ids, list) else [ids]
    if not all(type(token_id) is int and token_id >= 0 for token_id in listed):
        raise CheckpointError(f"{file}: field 'eos_token_id' is {ids!r}: expected a token id or a list of token ids")
    return frozenset(token_id for token_id in listed if token_id < vocab_size)
