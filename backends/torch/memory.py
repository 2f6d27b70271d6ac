"""How much K/V cache there is room for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..host_memory import gib

CPU_DEFAULT_BYTES = 2 << 30  # of K/V cache on a CPU, unless one whole context needs more
LOGITS_BYTES = 256 << 20  # of float32 logits in one forward


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The K/V memory of one model: per layer [tiles, 2 * kv_heads, tile_size, head_dim].

    A block of the engine is a whole number of tiles, the unit in which K/V are gathered: a cache of whole rows
    (block_size == max_model_len) is then read only as far as it is filled. One tile of zeros at the end pads tables.
    """

    num_layers: int
    num_heads: int  # 2 * kv_heads
    head_dim: int
    block_size: int
    dtype: torch.dtype

    @property
    def tile_size(self) -> int:
        """The largest divisor of block_size up to 16."""
        return max(size for size in range(1, 17) if self.block_size % size == 0)

    @property
    def tiles_per_block(self) -> int:
        """How many tiles make a block."""
        return self.block_size // self.tile_size

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, all layers together."""
        return self.num_layers * self.num_heads * self.block_size * self.head_dim * self.dtype.itemsize

    def allocate(self, num_blocks: int, device: torch.device) -> torch.Tensor:
        """Return uninitialised caches [layers, tiles, 2 * kv_heads, tile_size, D], the last tile zero.

        On a CPU the system commits pages as they are first written.
        """
        tiles = num_blocks * self.tiles_per_block + 1
        size = (self.num_layers, tiles, self.num_heads, self.tile_size, self.head_dim)
        try:
            caches = torch.empty(size, dtype=self.dtype, device=device)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            raise ValueError(
                f"backend torch: no memory for {num_blocks} blocks of K/V cache ({gib(num_blocks * self.block_bytes)}) "
                f"on {device}: lower num_blocks, or max_model_len and max_num_seqs"
            ) from error
        caches[:, -1] = 0
        return caches


def cpu_num_blocks(
    shape: CacheShape, *, max_model_len: int, max_num_seqs: int, memory_fraction: float, free: int
) -> int:
    """Return a pool that holds every request at full length, within 2 GiB or one full context, and free memory.

    Raises ValueError when not even one full context fits.
    """
    one = -(-max_model_len // shape.block_size)
    room = int(free * memory_fraction) // shape.block_bytes
    if room < one:
        raise ValueError(
            f"backend torch: a context of {max_model_len} tokens needs {gib(one * shape.block_bytes)} of K/V cache, "
            f"and {gib(room * shape.block_bytes)} are free: lower max_model_len, or set num_blocks"
        )
    return min(one * max_num_seqs, max(CPU_DEFAULT_BYTES // shape.block_bytes, one), room)


def cuda_num_blocks(
    shape: CacheShape, *, max_model_len: int, memory_fraction: float, free: int, total: int, reserve: int
) -> int:
    """Return the blocks that fill memory_fraction of the device, `reserve` bytes of a step's own memory left out.

    Raises ValueError when not even one full context fits.
    """
    one = -(-max_model_len // shape.block_size)
    room = (free - reserve - int(total * (1 - memory_fraction))) // shape.block_bytes
    if room < one:
        raise ValueError(
            f"backend torch: a context of {max_model_len} tokens needs {gib(one * shape.block_bytes)} of K/V cache, "
            f"and {gib(max(room, 0) * shape.block_bytes)} are free beside the weights ({gib(total)} in all): lower "
            "max_model_len, raise memory_fraction, or set num_blocks"
        )
    return room


def default_max_num_logits(vocab_size: int, max_num_seqs: int, max_num_batched_tokens: int) -> int:
    """Return how many logits rows one forward may give: every request one, and what fits LOGITS_BYTES."""
    return max(max_num_seqs, min(max_num_batched_tokens, LOGITS_BYTES // (4 * vocab_size)))
