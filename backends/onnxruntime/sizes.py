"""What a configuration comes to: limits, rows of K/V memory, and whether all that fits."""

from __future__ import annotations

from dataclasses import replace

from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig, RunnerInfo
from ..host_memory import gib
from ..rows import num_rows
from .memory import RowShape

LOGITS_BYTES = 256 << 20  # of float32 logits in one forward
WARM_ROWS = 16
"""Rows beyond max_num_seqs: prefixes stay warm in them while every request runs."""

STRIPE = 16  # positions: whole pages for the usual head sizes

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
QUANTIZED_BYTES = {"int8": 1 + 4 / 32, "int4": 0.5 + 4 / 32}  # of a weight, with a float32 scale for each 32


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
    stored = {"float32": 4, "float16": 2, "bfloat16": 2}
    return checkpoint.num_bytes // stored[checkpoint.dtype]


def check_config(config: RunnerConfig) -> None:
    """Refuse settings that make no sense. Raises ValueError."""
    sizes = {
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "block_size": config.block_size,
    }
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"backend onnxruntime: {name} is {value}: expected at least 1")
    for name, value in {"num_blocks": config.num_blocks, "num_threads": config.num_threads}.items():
        if value < 0:
            raise ValueError(f"backend onnxruntime: {name} is {value}: expected at least 1, or 0 for the default")
    if config.max_num_logits and config.max_num_logits < config.max_num_seqs:
        raise ValueError(
            f"backend onnxruntime: max_num_logits is {config.max_num_logits}: expected at least max_num_seqs or 0"
        )


def plan(
    checkpoint: Checkpoint, config: RunnerConfig, *, dtype: str, device: str, shape: RowShape, free: int
) -> RunnerInfo:
    """Settle the limits for `free` bytes of memory. Raises ValueError when the weights and one row do not fit.

    On the CPU rows are committed as they are written, so there may be more than would fit if all were full: then
    max_cached_tokens says how many tokens do. A number of blocks that was asked for is taken at its word. It is said
    where all fit too, for then the runner is told where another request goes on in a row, which is no decode.
    """
    spec = checkpoint.spec
    weights = int(num_parameters(checkpoint) * QUANTIZED_BYTES.get(config.quantization or "", ITEM_BYTES[dtype]))
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
