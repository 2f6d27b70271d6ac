"""One safetensors file, memory-mapped: its header is checked whole before any tensor is handed out as a view."""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .types import CheckpointError

Array = NDArray[Any]

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
REMEDY = "download or copy the file again"
DTYPES: dict[str, np.dtype[Any]] = {  # what a tensor may be computed from
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
MAX_RANK = 8
MAX_SIZE = 2**48  # of one dimension
STRANGERS = {  # what other files begin with; as the length of a header each would be absurd
    b"PK\x03\x04": "a zip archive, as torch.save writes: pickles inside can run any code, so it is not read",
    b"\x80\x02": "a Python pickle, which can run any code when it is opened, so it is not read",
    b"\x80\x03": "a Python pickle, which can run any code when it is opened, so it is not read",
    b"\x80\x04": "a Python pickle, which can run any code when it is opened, so it is not read",
    b"\x80\x05": "a Python pickle, which can run any code when it is opened, so it is not read",
    b"version https://git-lfs": "a Git LFS pointer: the weights themselves were not downloaded",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"<!DOCTYPE": "a web page, perhaps an error that a download came with",
    b"<html": "a web page, perhaps an error that a download came with",
}
PACKED = "I32"  # of the words that several quantised weights share
ITEM_BITS = {  # of the other types, which may be there as long as no weight is stored so
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "U16": 16,
    "I16": 16,
    "U32": 32,
    "I32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
} | {name: dtype.itemsize * 8 for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies."""

    name: str
    dtype: str  # as safetensors calls it, such as "BF16"
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    stop: int

    @property
    def num_bytes(self) -> int:
        """Of its data."""
        return self.stop - self.start


class SafetensorsFile:
    """A mapped file and its table of tensors. The mapping lives as long as any view of it."""

    def __init__(self, path: Path) -> None:
        """Map the file and check its header. Raises CheckpointError naming the file and the tensor."""
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
                raise CheckpointError(f"{path}: cannot be read: it is no file")
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                self.size, self.modified_ns = status.st_size, status.st_mtime_ns
                if self.size < 8:
                    self._damaged(f"it has {self.size} bytes, too few for a safetensors file")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
        self.header = self._read_header()
        self.entries = {name: self._entry(name, value) for name, value in self._parse(self.header).items()}
        self._check_layout()

    def array(self, entry: TensorEntry) -> Array:
        """Return a read-only view of one tensor, which must be of one of DTYPES or PACKED."""
        dtype = np.dtype("<i4") if entry.dtype == PACKED else DTYPES[entry.dtype]
        count = entry.num_bytes // dtype.itemsize
        return np.frombuffer(self._map, dtype, count, entry.start).reshape(entry.shape)

    def _damaged(self, what: str, remedy: str = REMEDY) -> NoReturn:
        raise CheckpointError(f"{self.path}: {what}; {remedy}")

    def _read_header(self) -> bytes:
        for beginning, what in STRANGERS.items():
            if self._map[: len(beginning)] == beginning:
                self._damaged(f"it is {what}, whatever its name says", "get the model's .safetensors files")
        length = int.from_bytes(self._map[:8], "little")
        if length > MAX_HEADER_BYTES:
            self._damaged(f"its header claims {length} bytes, more than the format allows: not a safetensors file")
        if 8 + length > self.size:
            self._damaged(f"its header claims {length} bytes but the file ends after {self.size}: it is truncated")
        return bytes(self._map[8 : 8 + length])

    def _parse(self, header: bytes) -> Mapping[str, Any]:
        try:
            table = json.loads(header, object_pairs_hook=self._unique)
        except (ValueError, RecursionError) as error:
            self._damaged(f"its header is not JSON ({error})")
        if not isinstance(table, dict):
            self._damaged("its header is not a JSON object")
        table.pop("__metadata__", None)
        return table

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for name, value in pairs:
            if name in table:
                self._damaged(f"its header lists {name!r} twice")
            table[name] = value
        return table

    def _entry(self, name: str, value: Any) -> TensorEntry:
        data_start = 8 + len(self.header)
        if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
            self._damaged(f"tensor {name!r} is described by {_short(value)}: expected dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str):
            self._damaged(f"tensor {name!r} has dtype {_short(dtype)}: expected a name such as 'BF16'")
        if not _are_sizes(shape) or len(shape) > MAX_RANK:
            self._damaged(f"tensor {name!r} has shape {_short(shape)}: expected a list of {MAX_RANK} sizes at most")
        if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            self._damaged(f"tensor {name!r} has data_offsets {_short(offsets)}: expected [begin, end]")
        start, stop = data_start + offsets[0], data_start + offsets[1]
        if stop > self.size:
            self._damaged(f"tensor {name!r} ends at byte {stop} but the file ends after {self.size}: it is truncated")
        if dtype in ITEM_BITS and (stop - start) * 8 != prod(shape) * ITEM_BITS[dtype]:
            self._damaged(f"tensor {name!r} of dtype {dtype} and shape {shape} has {stop - start} bytes")
        return TensorEntry(name, dtype, tuple(shape), start, stop)

    def _check_layout(self) -> None:
        """Tensors lie side by side from the header to the end of the file."""
        end, before = 8 + len(self.header), "the header"
        for entry in sorted(self.entries.values(), key=lambda entry: (entry.start, entry.stop)):
            if entry.start < end:
                self._damaged(f"tensor {entry.name!r} overlaps {before}")
            if entry.start > end:
                self._damaged(f"tensor {entry.name!r} begins {entry.start - end} bytes after the end of {before}")
            end, before = entry.stop, f"tensor {entry.name!r}"
        if end != self.size:
            self._damaged(f"it has {self.size - end} bytes after the end of {before}")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor, and the file that holds it."""

    file: SafetensorsFile
    entry: TensorEntry

    def array(self) -> Array:
        """See SafetensorsFile.array."""
        return self.file.array(self.entry)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= MAX_SIZE for value in values)


def _short(value: Any) -> str:
    """Show a value of any size in a few characters."""
    text = repr(value[:MAX_RANK] if isinstance(value, list | str) else value)
    return text if len(text) <= 80 else text[:77] + "..."
