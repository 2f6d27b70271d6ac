"""Checkpoint: a model folder in Hugging Face layout, its weights as memory-mapped numpy views under canonical names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decoder_spec import DecoderSpec
from .safetensors_file import DTYPES, SafetensorsFile
from .shards import open_shards, read_json
from .types import CheckpointError
from .weight_names import PREFIXES, Source, Weight, weights

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """The bytes of one tensor: a contiguous piece of a file, in C order, little-endian."""

    path: Path
    offset: int  # bytes from the beginning of the file; safetensors aligns tensors to 8 or not at all
    num_bytes: int
    dtype: str  # as numpy (with ml_dtypes) calls it, such as "bfloat16"
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A weight that was found."""

    weight: Weight
    file: SafetensorsFile
    source: Source

    def location(self) -> TensorLocation:
        entry = self.file.entries[self.source.name]
        view = self.view()
        rows_before = self.source.rows[0] if self.source.rows else 0
        row_bytes = view.nbytes // max(1, len(view)) if view.ndim else view.nbytes
        offset = entry.start + rows_before * row_bytes
        if self.source.expert is not None:
            offset += self.source.expert * ((entry.stop - entry.start) // entry.shape[0])
        return TensorLocation(self.file.path, offset, view.nbytes, view.dtype.name, view.shape)

    def view(self) -> Array:
        array = self.file.array(self.file.entries[self.source.name])
        if self.source.expert is not None:
            array = array[self.source.expert]
        return array if self.source.rows is None else array[slice(*self.source.rows)]


class Checkpoint:
    """An opened model folder. Opening validates everything that can be checked without reading the weights."""

    path: Path
    config: Mapping[str, Any]  # config.json as it stands
    spec: DecoderSpec
    dtype: str  # of most weights, by bytes: "bfloat16", "float16", "float32"
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
        except CheckpointError as error:
            raise CheckpointError(f"{path / 'config.json'}: {error}") from error
        self.eos_token_ids = _eos_token_ids(path, self.config, self.spec.vocab_size)
        holders = open_shards(path)
        self._files = list(dict.fromkeys(holders.values()))
        self._places = _locate(self.spec, path, holders)
        used = {place.source.name for place in self._places.values()}
        self.unused_names = tuple(name for name in holders if name not in used)
        sizes: dict[str, int] = {}
        for name in self._places:
            view = self._places[name].view()
            sizes[view.dtype.name] = sizes.get(view.dtype.name, 0) + view.nbytes
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

    def names(self) -> Iterator[str]:
        """Canonical names of all tensors that the spec calls for, in layer order (a tied lm_head is not listed)."""
        return iter(self._places)

    def location(self, name: str) -> TensorLocation:
        """Where one tensor's bytes lie: `tensor(name)` for those who read the file themselves. Reads nothing.

        A part of a fused tensor (rows, or one expert of a stack) is contiguous too. A tied lm_head is embed_tokens.
        Raises KeyError for a name that the spec does not call for.
        """
        return self._place(name).location()

    def tensor(self, name: str) -> Array:
        """A read-only view of one tensor in its stored dtype (bfloat16 through ml_dtypes). No copy.

        A tied lm_head is embed_tokens. Raises KeyError for a name that the spec does not call for.
        """
        place = self._place(name)
        name = place.weight.name
        view = place.view()
        if self._on_read is not None and name not in self._read:
            self._read.add(name)
            self._on_read(name, view.nbytes)
        return view

    def _place(self, name: str) -> _Place:
        if name == "lm_head" and self.spec.tied_embeddings:
            name = "embed_tokens"
        if name not in self._places:
            raise KeyError(f"{self.path}: {self.spec.architecture} has no tensor {name!r}")
        return self._places[name]

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
            view = place.view()
            digest.update(f"{name}\0{view.dtype.name}\0{view.shape}\0".encode())
            digest.update(np.ascontiguousarray(view).view(np.uint8).data)
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


def _locate(spec: DecoderSpec, path: Path, holders: Mapping[str, SafetensorsFile]) -> dict[str, _Place]:
    """Find every weight, with the right shape and a dtype that can be computed from."""
    prefix = next((prefix for prefix in PREFIXES if f"{prefix}embed_tokens.weight" in holders), PREFIXES[0])
    places: dict[str, _Place] = {}
    for weight in weights(spec, prefix):
        source = next((source for source in weight.sources if source.name in holders), None)
        if source is None:
            raise CheckpointError(_missing(spec, weight, path, holders))
        file = holders[source.name]
        entry = file.entries[source.name]
        if entry.shape != source.shape:
            raise CheckpointError(
                f"{file.path}: tensor {source.name!r} has shape {list(entry.shape)}: expected {list(source.shape)} "
                "from config.json; one of the two belongs to another model"
            )
        if entry.dtype not in DTYPES:
            raise CheckpointError(
                f"{file.path}: tensor {source.name!r} is stored as {entry.dtype}: expected BF16, F16 or F32; "
                "quantised checkpoints are not supported, use the original one"
            )
        places[weight.name] = _Place(weight, file, source)
    return places


def _missing(spec: DecoderSpec, weight: Weight, path: Path, holders: Mapping[str, SafetensorsFile]) -> str:
    wanted = f"tensor {weight.sources[0].name!r} ({weight.name} of {spec.architecture})"
    files = ", ".join(dict.fromkeys(file.path.name for file in holders.values())) or "the files, which hold no tensors"
    hint = "the checkpoint is incomplete, or config.json belongs to another model"
    if weight.name == "lm_head":
        hint = "config.json says that tie_word_embeddings is false, so the model needs one of its own"
    return f"{path}: {wanted} is not in {files}; {hint}"
