"""Make an ONNX Runtime session from a decoder graph, its weights read from the checkpoint's files."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from ...core.checkpoint import Checkpoint
from ...core.types import Unsupported
from ..onnx_graph import Graph, forget_pages
from .huge_pages import huge_pages
from .options import Options

NO_FLASH = "ORT_GQA_DISABLE_FLASH_ATTENTION"
"""Read by ONNX Runtime's kernels when a session makes them. With tiles, sums depend on threads and chunks."""

IN_PLACE = "session.use_external_initializer_file_buffers_directly"

LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
SPIN_US = "20"  # bridges two operators
BRIEF_SINCE = (1, 26)  # versions before spin for as long as they like, whatever is asked for
READ_BYTES = 4 << 20
REFUSALS = (runtime.Fail, runtime.InvalidGraph, runtime.NotImplemented)

Provider = str | tuple[str, Mapping[str, Any]]


def open_session(
    checkpoint: Checkpoint,
    graph: Graph,
    options: Options,
    *,
    num_threads: int,
    providers: Sequence[Provider] = ("CPUExecutionProvider",),
    config: Mapping[str, str] | None = None,
) -> ort.InferenceSession:
    """Read the weights, with progress, and make the session.

    What the runtime has no copy of its own of, such as the embedding table, it goes on reading from the files; where
    weights are quantised, and so in no file as the runtime takes them, it keeps its own copy alone.
    `config` are ONNX Runtime's session configuration entries. Raises Unsupported where this version of the runtime
    lacks what the graph needs.
    """
    read_through(checkpoint)
    files = graph.files()
    in_place = graph.options.quantization is None and checkpoint.packing is None
    settings = session_options(options, num_threads, {IN_PLACE: str(int(in_place)), **(config or {})})
    settings.add_external_initializers_from_files_in_memory(
        list(files), list(files.values()), [contents.size for contents in files.values()]
    )
    with huge_pages(), flash_attention(options.flash_attention):
        try:
            session = ort.InferenceSession(graph.to_bytes(), settings, providers=list(providers))
        except REFUSALS as error:
            raise Unsupported(
                f"backend onnxruntime: onnxruntime {ort.__version__} does not run the graph of {checkpoint.path}: "
                f"{error}; a later version may"
            ) from error
    forget_pages(files)
    if in_place:
        session.isotoken_files = files  # which must live as long
    forget_read_pages(checkpoint)
    return session


def session_options(options: Options, num_threads: int, config: Mapping[str, str]) -> ort.SessionOptions:
    """Return the settings of a session."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = num_threads or default_num_threads()
    settings.inter_op_num_threads = 1  # one operator after the other
    settings.graph_optimization_level = LEVELS[options.graph_optimization]
    settings.enable_mem_pattern = False  # plans one for each shape of batch, and there is no end of shapes
    settings.log_severity_level = 3  # errors: they are raised as well, and warnings are about what is meant to be so
    for key, value in spinning(options.allow_spinning).items():
        settings.add_session_config_entry(f"session.intra_op.{key}", value)
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for key, value in config.items():
        settings.add_session_config_entry(key, value)
    return settings


def spinning(choice: str, version: str = ort.__version__) -> dict[str, str]:
    """Return the settings of a choice of the option allow_spinning."""
    if choice == "on":
        return {"allow_spinning": "1"}
    if choice == "brief" and tuple(map(int, version.split(".")[:2])) >= BRIEF_SINCE:
        return {"allow_spinning": "1", "spin_duration_us": SPIN_US}
    return {"allow_spinning": "0"}


def default_num_threads() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_through(checkpoint: Checkpoint) -> None:
    """Read every tensor's bytes once, so that Checkpoint's on_read tells how far loading is; the system keeps them.

    ONNX Runtime reads all weights in one call that says nothing until it is done.
    """
    for name in checkpoint.names():
        if checkpoint.is_packed(name):
            continue  # was read, and reported, when the graph was built
        place = checkpoint.location(name)
        with place.path.open("rb", buffering=0) as file:
            file.seek(place.offset)
            left = place.num_bytes
            while left > 0 and (chunk := file.read(min(left, READ_BYTES))):
                left -= len(chunk)
        checkpoint.tensor(name)  # reports it as read


def forget_read_pages(checkpoint: Checkpoint) -> None:
    """Let the system take back the pages of the checkpoint that were read; what is needed again is read again."""
    plain = [name for name in checkpoint.names() if not checkpoint.is_packed(name)]
    mappings = {id(mapping): mapping for name in plain if (mapping := _mapping(checkpoint.tensor(name)))}
    for mapping in mappings.values():
        if hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: NDArray[Any]) -> mmap.mmap | None:
    """The file mapping that an array is a view of."""
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner if isinstance(owner, mmap.mmap) else None


@contextmanager
def flash_attention(wanted: bool) -> Iterator[None]:
    """Have ONNX Runtime's attention use its tiled kernels, or not, in the sessions made meanwhile."""
    before = os.environ.get(NO_FLASH)
    os.environ[NO_FLASH] = "0" if wanted else "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(NO_FLASH, None)
        else:
            os.environ[NO_FLASH] = before


def weight_bytes(graph: Graph) -> int:
    """Return the bytes of the weights as the session holds them: a matrix that is cast, in the dtype it is cast to."""
    total = 0
    for name, value in graph.model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and (name in graph.weights or name.endswith(".scale")):  # small scales are in the graph
            total += max((_kept_bytes(tensor, node) for node, _ in value.uses()), default=0)
    return total


def _kept_bytes(tensor: ir.TensorProtocol, node: ir.Node) -> int:
    if node.op_type != "Cast":
        return tensor.nbytes
    return int(tensor.size * ir.DataType(node.attributes.get_int("to")).itemsize)
