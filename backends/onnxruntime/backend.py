"""The onnxruntime backend: what it can do here, and what a configuration comes to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...core.capabilities import Capabilities, unsupported
from ...core.checkpoint import Checkpoint
from ...core.fast_sampler import FastSampler
from ...core.interfaces import ModelRunner, RunnerConfig
from ...core.types import Unsupported
from ..onnx_graph import GraphOptions, build_graph
from . import sizes
from .memory import HostRows, available_bytes
from .options import Options
from .runner import OnnxRuntimeRunner
from .session import open_session, weight_bytes

QUANTIZATIONS = frozenset({"int8", "int4"})
KV_CACHE_DTYPES = frozenset({"float32", "float16"})


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU in float32, with float32, int8 or int4 weights."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self.capabilities = Capabilities(
            dtypes=frozenset({"float32"}),
            devices=frozenset({"cpu"}),
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
            invariant_to=frozenset({"company", "placement", "chunking", "threads"}),
        )

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> ModelRunner:
        """Load the weights and set up K/V memory.

        Raises Unsupported for what the backend does not do, ValueError for a setting that cannot be met, and both
        before anything big is allocated.
        """
        options = Options.read(config.options)
        self._refuse_absent(config)
        sizes.check_config(config)
        max_model_len = checkpoint.spec.resolve_max_model_len(config.max_model_len)
        kv_dtype = "float32" if config.kv_cache_dtype == "auto" else config.kv_cache_dtype
        shape = sizes.row_shape(checkpoint, max_model_len, kv_dtype)
        info = sizes.plan(checkpoint, config, dtype="float32", shape=shape, free=available_bytes())
        graph_options = GraphOptions(quantization=config.quantization, kv_dtype=kv_dtype, max_model_len=max_model_len)
        graph = build_graph(checkpoint, graph_options)
        rows = HostRows(shape, info.num_blocks, np.dtype(kv_dtype))
        try:
            session = open_session(checkpoint, graph, options, num_threads=config.num_threads)
        except BaseException:
            rows.close()
            raise
        return OnnxRuntimeRunner(
            session,
            rows,
            replace(info, weight_bytes=weight_bytes(graph)),
            num_heads=checkpoint.spec.num_heads,
            num_parameters=sizes.num_parameters(checkpoint),
            sampler=FastSampler(),
        )

    def _refuse_absent(self, config: RunnerConfig) -> None:
        can = self.capabilities
        if config.dtype not in ("auto", *can.dtypes):
            raise Unsupported(
                f"backend onnxruntime: dtype {config.dtype!r} is not one of auto, {', '.join(sorted(can.dtypes))}"
            )
        if config.device not in ("auto", "cpu"):
            raise Unsupported(f"backend onnxruntime: device {config.device!r} is not one of auto, cpu")
        if config.quantization is not None and config.quantization not in can.quantizations:
            raise Unsupported(
                f"backend onnxruntime: quantization {config.quantization!r} is not one of "
                f"{', '.join(sorted(can.quantizations))}"
            )
        if config.kv_cache_dtype not in ("auto", *can.kv_cache_dtypes):
            raise Unsupported(f"backend onnxruntime: kv_cache_dtype {config.kv_cache_dtype!r} is not available")
        if config.tensor_parallel_size != 1:
            raise Unsupported(
                f"backend onnxruntime: tensor_parallel_size {config.tensor_parallel_size} is not available; only 1"
            )
