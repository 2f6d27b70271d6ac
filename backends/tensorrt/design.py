"""The design of an engine: everything that is decided before it is built or loaded, and what names it in the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import tensorrt as trt

from ...core.capabilities import Capabilities
from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig
from ...core.quantization import FP8, INT8_ROWS, refuse_absent
from ...core.types import Unsupported
from ..onnx_graph import Graph, GraphOptions, build_graph
from .cache import CacheShape
from .device import Device
from .dialect import to_tensorrt
from .options import Options
from .profiles import Profile, describe_profiles, make_profiles
from .store import Key

ITEMSIZES = {"float32": 4, "float16": 2, "bfloat16": 2}  # of the compute dtypes
QUANTIZATIONS = (INT8_ROWS.name, FP8.name)
"""Not int8, which has a scale for each 32 weights: TensorRT takes one for each output of a matrix."""
LOGITS_BYTES = 256 << 20  # of float32 logits in one forward


@dataclass(frozen=True, slots=True)
class Design:
    """One engine for one model, device and set of limits."""

    checkpoint: Checkpoint
    config: RunnerConfig
    options: Options
    dtype: str
    max_model_len: int
    max_num_logits: int
    graph: Graph
    model: bytes  # the graph as TensorRT's parser takes it
    profiles: tuple[Profile, ...]
    target: str  # GPU and version: what timings are good for
    key: Key

    def cache_shape(self, num_rows: int) -> CacheShape:
        """The K/V memory with so many rows."""
        return _cache_shape(self.checkpoint, self.dtype, self.max_model_len, self.options, num_rows)


def make_design(checkpoint: Checkpoint, config: RunnerConfig, device: Device, can: Capabilities) -> Design:
    """Decide. Raises Unsupported for what the backend does not do, ValueError for a setting that cannot be met."""
    _refuse_absent(can, config)
    options = Options.read(config.options)
    dtype, spec = resolve_dtype(config.dtype, checkpoint.dtype), checkpoint.spec
    max_model_len = spec.resolve_max_model_len(config.max_model_len)
    max_num_logits = max(config.max_num_logits, config.max_num_seqs)
    if config.max_num_logits == 0:
        fitting = min(config.max_num_batched_tokens, LOGITS_BYTES // (4 * spec.vocab_size))
        max_num_logits = max(config.max_num_seqs, fitting)
    row_len = _cache_shape(checkpoint, dtype, max_model_len, options, 1).row_len
    graph = build_graph(
        checkpoint,
        GraphOptions(
            attention="standard-mask",
            linear="gemm" if config.quantization is None else "qdq",
            dtype=dtype,
            quantization=config.quantization,
            max_model_len=max_model_len,
            row_len=row_len,
        ),
    )
    profiles = make_profiles(
        max_num_seqs=config.max_num_seqs,
        max_chunk=min(config.max_num_batched_tokens, max_model_len),
        max_num_logits=max_num_logits,
        verify_tokens=options.verify_tokens,
    )
    target = f"{device.model}; TensorRT {trt.__version__}"
    model = to_tensorrt(graph)
    return Design(
        checkpoint=checkpoint,
        config=config,
        options=options,
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_logits=max_num_logits,
        graph=graph,
        model=model,
        profiles=profiles,
        target=target,
        key=_key(checkpoint, model, profiles, options, device),
    )


def _cache_shape(checkpoint: Checkpoint, dtype: str, max_model_len: int, options: Options, num_rows: int) -> CacheShape:
    spec = checkpoint.spec
    return CacheShape.make(
        num_layers=spec.num_layers,
        num_rows=num_rows,
        num_kv_heads=spec.num_kv_heads,
        max_model_len=max_model_len,
        spare=options.verify_tokens,
        head_dim=spec.head_dim,
        itemsize=ITEMSIZES[dtype],
    )


def _key(checkpoint: Checkpoint, model: bytes, profiles: tuple[Profile, ...], options: Options, device: Device) -> Key:
    """Name the engine. Where it is kept and whether CUDA graphs are used makes no other engine."""
    return Key(
        {
            "graph": hashlib.sha256(model).hexdigest(),
            "weights": checkpoint.key,  # with refit too: such an engine is built for these very weights
            "profiles": describe_profiles(profiles),
            "tensorrt": trt.__version__,
            "gpu": device.model,
            "workspace_mib": options.workspace_mib,
            "optimization_level": options.optimization_level,
            "refit": options.refit,
        }
    )


def resolve_dtype(wanted: str, stored: str) -> str:
    """Return the compute dtype: the stored one for "auto" where TensorRT computes in it, else float32."""
    if wanted == "auto":
        return stored if stored in ITEMSIZES else "float32"
    if wanted not in ITEMSIZES:
        raise Unsupported(f"backend tensorrt: dtype {wanted!r} is not one of auto, {', '.join(ITEMSIZES)}")
    return wanted


def _refuse_absent(can: Capabilities, config: RunnerConfig) -> None:
    refuse_absent("tensorrt", can, quantization=config.quantization, kv_cache_dtype=config.kv_cache_dtype)
    if config.tensor_parallel_size != 1:
        raise Unsupported(
            f"backend tensorrt: tensor_parallel_size {config.tensor_parallel_size} is not available; only 1"
        )
