"""What a configuration comes to: limits, blocks of K/V memory, and whether all that fits."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig, RunnerInfo
from ..host_memory import gib
from ..limits import check_limits
from .cache import PIECE, CacheShape
from .memory import round_up
from .precision import Precision

LOGITS_BYTES = 64 << 20  # of float32 logits in one forward, where nobody says how many
DEFAULT_CACHE_BYTES = 2 << 30  # of K/V, unless one whole context needs more


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of a runner beside its K/V, in bytes."""

    weights: int
    activations: int  # of the largest step

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.activations


def limits(checkpoint: Checkpoint, config: RunnerConfig, precision: Precision) -> RunnerInfo:
    """Settle every limit but the number of blocks. Raises ValueError for what makes no sense."""
    check_limits("native", config)
    vocab_size = checkpoint.spec.vocab_size
    max_model_len = checkpoint.spec.resolve_max_model_len(config.max_model_len)
    fitting = min(config.max_num_batched_tokens, LOGITS_BYTES // (4 * vocab_size))
    return RunnerInfo(
        vocab_size=vocab_size,
        eos_token_ids=checkpoint.eos_token_ids,
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_logits=config.max_num_logits or max(config.max_num_seqs, fitting),
        block_size=round_up(min(config.block_size, max_model_len), PIECE),
        num_blocks=config.num_blocks,
        dtype=precision.dtype,
        device="cpu",
    )


def count_blocks(info: RunnerInfo, config: RunnerConfig, shape: CacheShape, need: Need, free: int) -> int:
    """Return how many blocks there are to be: as asked, else room for every request at full length, within reason.

    Raises ValueError where what was asked for, or one whole context, does not fit `free` bytes beside the rest.
    """
    one = -(-info.max_model_len // shape.block_size)
    least = config.num_blocks or one
    usable = free if config.num_blocks else int(free * config.memory_fraction)
    room = (usable - need.total) // shape.block_bytes
    if room < least:
        raise ValueError(
            f"backend native: {gib(need.weights)} of weights, {gib(need.activations)} for a step and "
            f"{gib(least * shape.block_bytes)} for {least} blocks of K/V cache do not fit {gib(max(usable, 0))} of "
            "free memory: choose a smaller model or a quantization, or lower num_blocks, max_model_len or "
            "max_num_batched_tokens"
        )
    default = min(one * info.max_num_seqs, max(DEFAULT_CACHE_BYTES // shape.block_bytes, one))
    return config.num_blocks or min(default, room)
