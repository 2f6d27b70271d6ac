"""The memory budget: what a model will take, and whether that fits beside the others, with the arithmetic shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.checkpoint import Checkpoint
from ...core.quantization import KV_CACHE_DTYPES
from ...core.types import IsotokenError
from .settings import ModelSettings
from .sizes import write_size

_DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_DEFAULT_KV_BYTES = 2 * 2**30  # what backends on a CPU take unless one whole context needs more


class DoesNotFit(IsotokenError):
    """A model does not fit the memory budget. The message shows the arithmetic."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes, in bytes."""

    weights: int
    kv_cache: int
    exact: bool = False  # told by its engine, not estimated beforehand

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.kv_cache

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        parts = f"weights {write_size(self.weights)} + K/V {write_size(self.kv_cache)}"
        return f"{about}{write_size(self.total)} ({parts})"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A model's need before it is loaded, and the K/V blocks that were worked out from it."""

    need: Need
    num_blocks: int  # 0: the backend decides


@dataclass(frozen=True, slots=True)
class Holder:
    """A model that holds memory."""

    key: str
    need: Need
    evictable: bool = False
    last_used: float = 0.0  # time.monotonic()


def estimate(folder: Path, settings: ModelSettings, draft_folder: Path | None = None) -> Estimate:
    """Work out what a model will take from the headers of its files. Raises CheckpointError.

    Weights count as they are stored, or in the dtype that is asked for; those that are quantised at load count as
    stored, which is more than they will take.
    """
    checkpoint = Checkpoint.open(folder)
    block_bytes = _block_bytes(checkpoint, settings)
    num_blocks = settings.num_blocks or settings.kv_memory // block_bytes
    weights = _weight_bytes(checkpoint, settings)
    if draft_folder is not None:
        weights += Checkpoint.open(draft_folder).num_bytes
    return Estimate(
        Need(weights, (num_blocks or _default_blocks(checkpoint, settings, block_bytes)) * block_bytes), num_blocks
    )


def _weight_bytes(checkpoint: Checkpoint, settings: ModelSettings) -> int:
    stored, wanted = _DTYPE_BYTES.get(checkpoint.dtype), _DTYPE_BYTES.get(settings.dtype)
    if stored is None or wanted is None or checkpoint.packing is not None or settings.quantization is not None:
        return checkpoint.num_bytes
    return checkpoint.num_bytes * wanted // stored


def _block_bytes(checkpoint: Checkpoint, settings: ModelSettings) -> int:
    """Return the bytes of one block: keys and values of block_size tokens in every layer."""
    dtype = next(name for name in (settings.kv_cache_dtype, settings.dtype, checkpoint.dtype) if name != "auto")
    spec, num_bits = checkpoint.spec, KV_CACHE_DTYPES.get(dtype, 32)
    return max(1, 2 * spec.num_layers * spec.kv_size * settings.block_size * num_bits // 8)


def _default_blocks(checkpoint: Checkpoint, settings: ModelSettings, block_bytes: int) -> int:
    """Return about how many blocks a backend takes by itself: every request at full length, within reason."""
    max_model_len = settings.max_model_len or checkpoint.spec.max_position_embeddings
    one = -(-max_model_len // settings.block_size)
    return min(one * settings.max_num_seqs, max(_DEFAULT_KV_BYTES // block_bytes, one))


class Budget:
    """So much memory for all models together."""

    def __init__(self, total: int) -> None:
        """Share `total` bytes out. 0: no budget, everything fits."""
        self.total = total

    def free(self, holders: Sequence[Holder]) -> int:
        """Return what is left beside these."""
        return self.total - sum(holder.need.total for holder in holders)

    def make_room(self, key: str, need: Need, holders: Sequence[Holder]) -> list[str]:
        """Return which models have to go before one that needs so much fits: none, or those idle for longest.

        Raises DoesNotFit where even that is not enough.
        """
        missing = need.total - self.free(holders)
        if not self.total or missing <= 0:
            return []
        leaving: list[str] = []
        for holder in sorted((h for h in holders if h.evictable), key=lambda holder: holder.last_used):
            leaving.append(holder.key)
            missing -= holder.need.total
            if missing <= 0:
                return leaving
        raise DoesNotFit(self._explain(key, need, holders))

    def _explain(self, key: str, need: Need, holders: Sequence[Holder]) -> str:
        taken = "".join(f"; {holder.key} takes {holder.need}" for holder in holders)
        evictable = sum(holder.need.total for holder in holders if holder.evictable)
        idle = f", {write_size(evictable)} of which are idle" if evictable else ""
        used = self.total - self.free(holders)
        return (
            f"{key} does not fit: it needs {need}, and of the budget of {write_size(self.total)} "
            f"{write_size(used)} are taken{idle}, {write_size(max(0, self.total - used))} free{taken}. Unload a model, "
            "give this one less kv_memory or a quantization, or raise the fleet's memory"
        )
