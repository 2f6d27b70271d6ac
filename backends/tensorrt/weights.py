"""Weights by pointer: each initializer of a graph as an address in the mapped checkpoint, without a copy."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.checkpoint import TensorLocation
from ..onnx_graph import Graph


class Pointers:
    """(name, address, bytes) of the initializers whose data lie outside of a graph.

    TensorRT reads the memory while it parses, builds or refits: keep this object until it has.
    """

    def __init__(self, graph: Graph) -> None:
        self._files = graph.files()
        used = graph.model.graph.initializers
        self._weights = {name: source for name, source in graph.weights.items() if name in used}

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        for name, source in self._weights.items():
            if isinstance(source, TensorLocation):
                base = self._files[source.path.name].ctypes.data
                yield name, base + source.offset, source.num_bytes
            else:
                data = self._files[f"{name}.bin"]
                yield name, data.ctypes.data, data.nbytes

    def __len__(self) -> int:
        return len(self._weights)

    @property
    def num_bytes(self) -> int:
        """Of all of them."""
        return sum(num_bytes for _, _, num_bytes in self)
