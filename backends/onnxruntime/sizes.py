"""What a configuration comes to: limits, rows of K/V memory, and whether all that fits."""

from __future__ import annotations

import math
from dataclasses import replace

from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig, RunnerInfo
from ...core.packed_format import PackedFormat
from ...core.quantization import SCHEMES
from ..host_memory import gib
from ..onnx_graph.packed import is_block
from ..rows import num_rows
from .memory import RowShape

LOGITS_BYTES = 256 << 20  # of float32 logits in one forward
WARM_ROWS = 16
"""Rows beyond max_num_seqs: prefixes stay warm in them while every request runs."""

STRIPE = 16  # positions: whole pages for the usual head sizes

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


VERIFY_COSTS = {None: 0.05, "int8": 0.18, "int4": 0.22}
"""RunnerInfo.verify_cost by the weights, on the CPU: of bench-125m's, for up to eight tokens more. It holds for one
stream; of several each verification is a run of its own."""


def row_shape(checkpoint: Checkpoint, max_model_len: int, kv_dtype: str) -> RowShape:
    """Return the shape of rows that hold max_model_len tokens and one that pads a run."""
    spec = checkpoint.spec
    return RowShape(
        num_layers=spec.num_layers,
        num_kv_heads=spec.num_kv_heads,
        num_positions=-(-(max_model_len + 1) // STRIPE) * STRIPE,
        head_dim=spec.head_dim,
        itemsize=ITEM_BYTES[kv_dtype],
    )


def num_parameters(checkpoint: Checkpoint) -> int:
    """Return how many numbers the weights are."""
    return sum(math.prod(checkpoint.shape(name)) for name in checkpoint.names())


def expected_weight_bytes(checkpoint: Checkpoint, quantization: str | None, dtype: str) -> int:
    """Return what a session's weights will take, computed in `dtype`. Reads nothing.

    Matrices are quantised, but for routers and the embedding table, which stays as it is stored unless lm_head is the
    same matrix: where that is quantised the two come apart, else the table is kept in the compute dtype.
    """
    is_shared = checkpoint.spec.tied_embeddings
    total = 0
    for name in (*checkpoint.names(), *(["lm_head"] if is_shared and quantization else [])):
        shape = checkpoint.shape(name)
        if name == "embed_tokens" and (quantization or not is_shared):
            total += checkpoint.location(name).num_bytes
        elif quantization and len(shape) == 2 and not name.endswith(".router"):
            total += SCHEMES[quantization].num_bytes(*shape)
        elif dtype == "float32" and checkpoint.packing and checkpoint.is_packed(name):
            total += _packed_bytes(checkpoint.packing, *shape)
        else:
            total += math.prod(shape) * ITEM_BYTES[dtype]
    return total


def _packed_bytes(form: PackedFormat, outputs: int, inputs: int) -> int:
    """Return what a packed matrix takes as the graph has it: integers with scales and zero points, or else floats."""
    size = form.group_size or inputs
    if not is_block(size):
        return outputs * inputs * ITEM_BYTES["float32"]
    num_blocks = -(-inputs // size)
    return outputs * (num_blocks * (size * form.bits // 8 + ITEM_BYTES["float32"]) + -(-num_blocks // 2))


def plan(
    checkpoint: Checkpoint, config: RunnerConfig, *, dtype: str, device: str, shape: RowShape, free: int
) -> RunnerInfo:
    """Settle the limits for `free` bytes of memory. Raises ValueError when the weights and one row do not fit.

    On the CPU rows are committed as they are written, so there may be more than would fit if all were full: then
    max_cached_tokens says how many tokens do. A number of blocks that was asked for is taken at its word. It is said
    where all fit too, for then the runner is told where another request goes on in a row, which is no decode.
    """
    spec = checkpoint.spec
    weights = expected_weight_bytes(checkpoint, config.quantization, dtype)
    max_model_len = spec.resolve_max_model_len(config.max_model_len)
    room_bytes = int(free * config.memory_fraction) - weights
    room = room_bytes // shape.row_bytes
    if room < 1:
        raise ValueError(
            f"backend onnxruntime: {gib(weights)} of weights and {gib(shape.row_bytes)} of K/V cache for one context "
            f"of {max_model_len} tokens do not fit {gib(int(free * config.memory_fraction))}, memory_fraction of what "
            "is free: choose a smaller model, a quantization, or a lower max_model_len"
        )
    rows = num_rows(config, max_model_len) if config.num_blocks else config.max_num_seqs + WARM_ROWS
    is_lazy = device == "cpu" and not config.num_blocks
    if not is_lazy and not config.num_blocks:
        rows = min(rows, room)
    fitting = room_bytes // shape.token_bytes if is_lazy and room < rows else 0
    return RunnerInfo(
        vocab_size=spec.vocab_size,
        eos_token_ids=checkpoint.eos_token_ids,
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_logits=config.max_num_logits
        or max(config.max_num_seqs, min(config.max_num_batched_tokens, LOGITS_BYTES // (4 * spec.vocab_size))),
        block_size=max_model_len,
        num_blocks=rows,
        max_cached_tokens=fitting or rows * max_model_len,
        dtype=dtype,
        device=device,
        verify_cost=VERIFY_COSTS[config.quantization] if device == "cpu" else 0.0,
        kv_cache_bytes=fitting * shape.token_bytes or rows * shape.row_bytes,
    )


def in_blocks(info: RunnerInfo, shape: RowShape, config: RunnerConfig) -> tuple[RunnerInfo, RowShape]:
    """Return the same memory cut into blocks of the size that was wished for, in place of rows."""
    block_size = min(config.block_size, info.max_model_len)
    shape = replace(shape, num_positions=block_size)
    num_blocks = config.num_blocks or info.num_blocks * info.max_model_len // block_size
    return replace(
        info,
        block_size=block_size,
        num_blocks=num_blocks,
        max_cached_tokens=0,
        kv_cache_bytes=num_blocks * shape.row_bytes,
    ), shape
