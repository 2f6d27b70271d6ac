"""The onnxruntime backend: what it can do here, and what a configuration comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from ...core.capabilities import Aspect, Capabilities, unsupported
from ...core.checkpoint import Checkpoint
from ...core.fast_sampler import FastSampler
from ...core.interfaces import ModelRunner, RunnerConfig, RunnerInfo
from ...core.quantization import INT4, INT8, refuse_absent
from ...core.types import Unsupported
from ..host_memory import available_bytes
from ..limits import check_limits
from ..onnx_graph import Graph, GraphOptions, build_graph
from ..onnx_graph.options import AttentionForm
from . import sizes
from .bindings import Bindings, Window, WindowBinding
from .forms import Form, gqa_inputs, standard_form
from .memory import HostRows, trim_heap
from .options import Options
from .runner import OnnxRuntimeRunner
from .session import open_session, weight_bytes

if TYPE_CHECKING:
    from .placement import Rows

QUANTIZATIONS = frozenset({INT8.name, INT4.name})
KV_CACHE_DTYPES = frozenset({"float32", "float16"})
CPU_DTYPES = frozenset({"float32"})
CUDA_DTYPES = frozenset({"float16", "bfloat16"})
CUDA_PROVIDER = "CUDAExecutionProvider"
PROVEN: frozenset[Aspect] = frozenset({"company", "placement", "chunking", "threads"})
"""On the CPU, by tests/backends/onnxruntime/test_invariance.py."""


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU in float32, with float32, int8 or int4 weights; on CUDA too, but it has not run there."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._no_cuda = no_cuda()
        has_cuda = self._no_cuda is None
        self.capabilities = Capabilities(
            dtypes=CPU_DTYPES | (CUDA_DTYPES if has_cuda else frozenset()),
            devices=frozenset({"cpu", "cuda"} if has_cuda else {"cpu"}),
            device_dtypes={"cpu": CPU_DTYPES},
            missing_devices={} if self._no_cuda is None else {"cuda": self._no_cuda},
            quantizations=QUANTIZATIONS,
            kv_cache_dtypes=KV_CACHE_DTYPES,
            prefix_caching=unsupported(
                "ONNX Runtime's attention reads each request's keys and values from one row of its own, so no block "
                "can stand in two tables; prefixes are copied from row to row instead (kv_cache contiguous)"
            ),
            batch_invariant=unsupported(
                "GroupQueryAttention computes one new token with another kernel than several, so the last bits of a "
                "position depend on whether it came with a prompt or as a decode"
            ),
            invariant_to=frozenset() if has_cuda else PROVEN,
        )

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> ModelRunner:
        """Load the weights and set up K/V memory.

        Raises Unsupported for what the backend does not do, ValueError for a setting that cannot be met, and both
        before anything big is allocated.
        """
        options = Options.read(config.options)
        self._refuse_absent(config)
        check_limits(self.name, config)
        if config.device.partition(":")[0] == "cuda" or (config.device == "auto" and self._no_cuda is None):
            from .cuda_load import load_on_cuda  # noqa: PLC0415  (needs torch)

            return load_on_cuda(checkpoint, config, options)
        runner = load_on_cpu(checkpoint, config, options)
        trim_heap()  # of what the graph and the loading took
        return runner

    def _refuse_absent(self, config: RunnerConfig) -> None:
        can = self.capabilities
        kind, _, index = config.device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (index and kind != "cuda"):
            raise Unsupported(f"backend onnxruntime: device {config.device!r} is not one of auto, cpu, cuda, cuda:N")
        if kind == "cuda" and self._no_cuda is not None:
            raise Unsupported(f"backend onnxruntime: device {config.device!r} cannot be used here: {self._no_cuda}")
        dtypes = can.device_dtypes.get(kind, can.dtypes)
        if config.dtype not in ("auto", *dtypes):
            raise Unsupported(
                f"backend onnxruntime: dtype {config.dtype!r} on {config.device} is not one of auto, "
                f"{', '.join(sorted(dtypes))}"
            )
        refuse_absent(self.name, can, quantization=config.quantization, kv_cache_dtype=config.kv_cache_dtype)
        if config.tensor_parallel_size != 1:
            raise Unsupported(
                f"backend onnxruntime: tensor_parallel_size {config.tensor_parallel_size} is not available; only 1"
            )


def no_cuda() -> str | None:
    """Return what is missing for CUDA here, or None. Imports torch only where ONNX Runtime has the provider."""
    if CUDA_PROVIDER not in ort.get_available_providers():
        return (
            f"onnxruntime {ort.__version__} is the package for the CPU, without {CUDA_PROVIDER}; run: pip uninstall -y "
            "onnxruntime, then: pip install 'isotoken[onnxruntime-gpu]'"
        )
    try:
        from .cuda import missing  # noqa: PLC0415  (needs torch)
    except ImportError as error:
        return f"it keeps K/V in torch's memory, and torch cannot be imported ({error}); run: pip install torch"
    return missing()


def load_on_cpu(checkpoint: Checkpoint, config: RunnerConfig, options: Options) -> OnnxRuntimeRunner:
    """Load a runner whose rows lie in lazily committed main memory."""
    max_model_len = checkpoint.spec.resolve_max_model_len(config.max_model_len)
    kv_dtype = "float32" if config.kv_cache_dtype == "auto" else config.kv_cache_dtype
    shape = sizes.row_shape(checkpoint, max_model_len, kv_dtype)
    info = sizes.plan(checkpoint, config, dtype="float32", device="cpu", shape=shape, free=available_bytes())
    graph = make_graph(checkpoint, config, options, device="cpu", dtype="float32", kv_dtype=kv_dtype)
    rows = HostRows(shape, info.num_blocks, np.dtype(kv_dtype))
    try:
        session = open_session(checkpoint, graph, options, num_threads=config.num_threads)
    except BaseException:
        rows.close()
        raise
    form = make_form(graph, max_model_len)

    def bind(first: int, count: int) -> Window:
        return WindowBinding(session, rows, form, first, count)

    return make_runner(checkpoint, graph, info, rows, bind)


def make_graph(
    checkpoint: Checkpoint, config: RunnerConfig, options: Options, *, device: str, dtype: str, kv_dtype: str
) -> Graph:
    """Build the graph that a configuration asks for. Raises Unsupported where its attention has no kernel."""
    graph_options = GraphOptions(
        attention=attention_form(options, device, dtype),
        dtype=dtype,
        kv_dtype=kv_dtype,
        quantization=config.quantization,
        max_model_len=config.max_model_len,
    )
    return build_graph(checkpoint, graph_options)


def attention_form(options: Options, device: str, dtype: str) -> AttentionForm:
    """Return the form of attention that there is a kernel for on a type of device in a dtype."""
    if options.attention == "paged":
        if device != "cuda" or dtype not in CUDA_DTYPES:
            raise Unsupported(
                "backend onnxruntime: option attention=paged: PagedAttention has kernels on CUDA, in float16 and "
                f"bfloat16 only, not on {device} in {dtype}"
            )
        return "paged"
    if options.attention == "standard" or (device == "cuda" and dtype not in CUDA_DTYPES):
        return "standard"
    return "gqa"


def make_form(graph: Graph, max_model_len: int) -> Form:
    """Return how runs of a graph are described; position max_model_len of every row is spare."""
    return gqa_inputs if graph.options.attention == "gqa" else standard_form(max_model_len)


def make_runner(
    checkpoint: Checkpoint, graph: Graph, info: RunnerInfo, rows: Rows, bind: Callable[[int, int], Window]
) -> OnnxRuntimeRunner:
    """Put a runner around a loaded graph."""
    return OnnxRuntimeRunner(
        Bindings(bind),
        rows,
        replace(info, weight_bytes=weight_bytes(graph)),
        num_heads=checkpoint.spec.num_heads,
        num_parameters=sizes.num_parameters(checkpoint),
        sampler=FastSampler(),
    )
