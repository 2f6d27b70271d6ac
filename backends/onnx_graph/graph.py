"""Graph: a finished decoder graph with its ports and weights, and the ways to hand it to a runtime."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...core.checkpoint import TensorLocation
from .options import GraphOptions
from .writer import Array, GraphWriter, Port


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph and where its weights are."""

    model: ir.Model
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: Mapping[str, TensorLocation | Array]  # initializer name -> where its bytes are, or the bytes themselves
    options: GraphOptions

    @classmethod
    def of(cls, writer: GraphWriter, options: GraphOptions) -> Self:
        """Finish what a writer recorded."""
        inputs, outputs = (tuple(map(_port, values)) for values in (writer.inputs, writer.outputs))
        return cls(writer.model(), inputs, outputs, writer.weights, options)

    def to_bytes(self) -> bytes:
        """The graph alone (a ModelProto). Its weights are external data in files named as in `files()`."""
        proto: bytes = ir.to_proto(self.model).SerializeToString()
        return proto

    def files(self) -> dict[str, NDArray[np.uint8]]:
        """The external files that the graph names, as bytes in memory: mapped checkpoint files and arrays. No copy."""
        files: dict[str, NDArray[np.uint8]] = {}
        for name, source in self.weights.items():
            if not isinstance(source, TensorLocation):
                files[f"{name}.bin"] = _bytes(source)
            elif source.path.name not in files:
                files[source.path.name] = _mapped(source.path)
        return files

    def bytes_of(self, files: Mapping[str, NDArray[np.uint8]], name: str) -> NDArray[np.uint8]:
        """The bytes of one weight as a view of what `files()` returned: its address is what a parser may be given."""
        source = self.weights[name]
        if isinstance(source, TensorLocation):
            return files[source.path.name][source.offset : source.offset + source.num_bytes]
        return files[f"{name}.bin"]

    def save(self, folder: Path | str, *, link: bool = False) -> Path:
        """Write `model.onnx` into a folder, with the weights beside it; see save.save."""
        from .save import save  # noqa: PLC0415  (which knows this class)

        return save(self, Path(folder), link=link)


def forget_pages(files: Mapping[str, NDArray[np.uint8]]) -> None:
    """Tell the system that it may take back the memory of mapped files; what is needed again is read again.

    For after a runtime has read the weights: until then each page that was read counts as this process's memory.
    """
    for file in files.values():
        mapping = getattr(file.base, "obj", None)  # of the memoryview that np.frombuffer made
        if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def _port(value: ir.Value) -> Port:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    shape = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)
    return Port(value.name, value.dtype.numpy().name, shape)


def _bytes(array: Array) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _mapped(path: Path) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
