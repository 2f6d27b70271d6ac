"""Write a step's keys and values to their slots of the paged cache."""

from __future__ import annotations

from torch import Tensor


def kv_write(
    kv: Tensor,  # [T, 2 * kv_heads, D]: the keys' heads, then the values'
    cache: Tensor,  # [blocks, 2 * kv_heads, block_size, D], written in place
    block_ids: Tensor,  # [T] int
    offsets: Tensor,  # [T] int: position within the block
) -> None:
    """Set cache[block_ids[t], :, offsets[t]] = kv[t]. A slot stands at most once in a step."""
    cache[block_ids, :, offsets] = kv
