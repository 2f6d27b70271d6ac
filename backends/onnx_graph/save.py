"""Writes a graph into a folder so that any ONNX runtime can load it: the weights must lie in or below that folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnx_ir as ir

from ...core.checkpoint import TensorLocation
from .graph import Graph
from .writer import Array

MODEL_FILE = "model.onnx"
ARRAYS_FILE = "weights.bin"
ALIGNMENT = 64
COPY_BYTES = 1 << 26


def save(graph: Graph, folder: Path, *, link: bool = False) -> Path:
    """Write `model.onnx` (and `weights.bin` for arrays that no checkpoint holds) and return the path of the model.

    A checkpoint file that is already in the folder is used where it is. Another is copied (without taking space where
    the file system shares blocks); with `link` it gets a hard link, which onnxruntime reads but onnx's own tools
    refuse. Runtimes refuse weights outside of the model's folder, and symbolic links that lead there.
    Raises FileExistsError when the folder holds another file under such a name, OSError when the disk is full or the
    file system has no links.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in dict.fromkeys(source.path for source in graph.weights.values() if isinstance(source, TensorLocation)):
        _place(path, folder / path.name, link)
    arrays = {name: source for name, source in graph.weights.items() if not isinstance(source, TensorLocation)}
    offsets = _write_arrays(arrays, folder / ARRAYS_FILE) if arrays else {}
    proto = ir.to_proto(graph.model)
    for initializer in proto.graph.initializer:
        if initializer.name in offsets:
            entries = {entry.key: entry for entry in initializer.external_data}
            entries["location"].value, entries["offset"].value = ARRAYS_FILE, str(offsets[initializer.name])
    path = folder / MODEL_FILE
    partial = path.with_suffix(".partial")
    partial.write_bytes(proto.SerializeToString())
    partial.replace(path)
    return path


def _place(source: Path, target: Path, link: bool) -> None:
    real = source.resolve()
    if target.is_symlink():  # as in the hub's cache
        raise FileExistsError(f"{target} is a symbolic link, which runtimes refuse: choose another folder")
    if target.exists():
        if not _same_content(real, target):
            raise FileExistsError(f"{target} exists and is another file than {source}: choose an empty folder")
    elif link:
        os.link(real, target)
    else:
        _copy(real, target)


def _same_content(first: Path, second: Path) -> bool:
    """Whether the files are one, or a copy that an earlier export made: same size, not older."""
    if first.samefile(second):
        return True
    a, b = first.stat(), second.stat()
    return a.st_size == b.st_size and b.st_mtime >= a.st_mtime


def _copy(source: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    with source.open("rb") as read, partial.open("wb") as write:
        try:
            while os.copy_file_range(read.fileno(), write.fileno(), COPY_BYTES):
                pass
        except (AttributeError, OSError):  # not Linux, or between file systems that cannot
            read.seek(0), write.seek(0)
            shutil.copyfileobj(read, write, COPY_BYTES)
    partial.replace(target)


def _write_arrays(arrays: dict[str, Array], path: Path) -> dict[str, int]:
    """Write arrays one after the other; return the offset of each."""
    offsets = {}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for name, array in arrays.items():
            file.write(bytes(-file.tell() % ALIGNMENT))
            offsets[name] = file.tell()
            array.tofile(file)
    partial.replace(path)
    return offsets
