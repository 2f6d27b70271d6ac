"""Writes a graph into a folder so that any ONNX runtime can load it: the weights must lie in or below that folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...core.checkpoint import TensorLocation
from .graph import Graph

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.bin"  # weights.1.bin and so on while one of an earlier graph is there
WEIGHTS_FILES = re.compile(r"weights(\.\d+)?\.bin(\.partial)?")
ALIGNMENT = 64

Place = tuple[str, int]  # file name, offset


def save(graph: Graph, folder: Path, *, link: bool = False) -> Path:
    """Write `model.onnx` and `weights.bin` and return the path of the model.

    Weights of a checkpoint that lies in this very folder stay where they are; others are copied to `weights.bin`. With
    `link` the checkpoint's files get hard links in the folder instead, which take no space and outlive the originals'
    names: onnxruntime reads them, onnx's own tools refuse them. (Every runtime refuses weights outside of the model's
    folder, and symbolic links that lead there.) A graph that was there before is whole, with its own weights, until the
    new one takes its place in one step; its weights are removed after that, whatever they were called.
    Raises OSError when the disk is full, a link's name is taken, or the file system cannot link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = {source.path for source in graph.weights.values() if isinstance(source, TensorLocation)}
    here = {path for path in sources if path.parent.resolve() == folder.resolve() and not path.is_symlink()}
    if link:
        for path in sources - here:
            os.link(path.resolve(), folder / path.name)
        here = sources
    weights = _unused(folder)
    moved = _pack(graph, here, weights)
    model = write_whole(folder / MODEL_FILE, _with_places(graph, moved))
    for path in folder.iterdir():
        if WEIGHTS_FILES.fullmatch(path.name) and path != weights:
            path.unlink()
    return model


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file so that nobody ever sees a part of it, or none where there was one."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return partial.replace(path)


def _unused(folder: Path) -> Path:
    """A name for the weights that no graph in the folder knows."""
    names = (WEIGHTS_FILE if not n else f"weights.{n}.bin" for n in count())
    return next(path for path in map(folder.joinpath, names) if not path.exists())


def _pack(graph: Graph, stay: set[Path], path: Path) -> dict[str, Place]:
    """Write all weights but those in files that stay, each once; return where each was put."""
    files, offsets, places = graph.files(), {}, {}
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        for name, source in graph.weights.items():
            if isinstance(source, TensorLocation) and source.path in stay:
                continue
            data: NDArray[np.uint8] = graph.bytes_of(files, name)
            address = (data.ctypes.data, data.size)
            if address not in offsets:
                file.write(bytes(-file.tell() % ALIGNMENT))
                offsets[address] = file.tell()
                file.write(data.data)
            places[name] = (path.name, offsets[address])
        file.flush()
        os.fsync(file.fileno())
    if places:
        partial.replace(path)
    else:
        partial.unlink()
    return places


def _with_places(graph: Graph, places: Mapping[str, Place]) -> bytes:
    proto = ir.to_proto(graph.model)
    for initializer in proto.graph.initializer:
        if initializer.name in places:
            entries = {entry.key: entry for entry in initializer.external_data}
            location, offset = places[initializer.name]
            entries["location"].value, entries["offset"].value = location, str(offset)
    serialized: bytes = proto.SerializeToString()
    return serialized
