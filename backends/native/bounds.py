"""What a batch may point at: checked before any kernel reads it, since kernels do not look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.batch import Batch
from ...core.interfaces import RunnerInfo

Int32 = NDArray[np.int32]

FEW = 24
"""Numbers that are looked at faster one by one than by numpy: a step of one token is to lose no time here."""


class Arrays(NamedTuple):
    """The arrays of a Batch as C reads them: themselves, as the engine builds batches."""

    input_ids: Int32  # [T]
    positions: Int32  # [T]
    slot_mapping: Int32  # [T]
    query_start_loc: Int32  # [N + 1]
    seq_lens: Int32  # [N]
    block_table: Int32  # [N, B]
    logits_indices: Int32  # [L]

    @classmethod
    def of(cls, batch: Batch) -> Arrays:
        """Copy what is not int32 or lies apart."""
        return cls(*(np.ascontiguousarray(getattr(batch, name), np.int32) for name in cls._fields))


def beyond_memory(arrays: Arrays, info: RunnerInfo) -> str:
    """Say which number of a batch points beyond a runner's memory; "" if none does."""
    return next(_faults(arrays, info), "")


def _faults(arrays: Arrays, info: RunnerInfo) -> Iterator[str]:
    """Yield what is wrong, what later looks rely on first."""
    ids, positions, slots, starts, seq_lens, table, logits = arrays
    num_tokens, longest = len(ids), max(seq_lens.tolist())
    if not len(positions) == len(slots) == num_tokens or not len(starts) - 1 == len(seq_lens) == len(table):
        yield "arrays of tokens, or of requests, are not equally long"
    if _reaches(ids, info.vocab_size):
        yield f"a token id is not within the vocabulary of {info.vocab_size}"
    if _reaches(positions, longest):
        yield f"a position is not within the longest request of {longest} tokens"
    if _reaches(slots, info.num_blocks * info.block_size):
        yield f"a slot is not within the {info.num_blocks} blocks of {info.block_size}"
    if len(logits) and _reaches(logits, num_tokens):
        yield f"a row of logits is not of one of the {num_tokens} tokens"
    if not _parts(starts.tolist(), seq_lens.tolist(), num_tokens):
        yield "query_start_loc does not part the tokens, or a request is shorter than its part"
    if longest > table.shape[1] * info.block_size:
        yield f"a request of {longest} tokens has {table.shape[1]} blocks of {info.block_size}"
    if _reaches(table.reshape(-1), info.num_blocks) and _reaches(_used(arrays, info), info.num_blocks):
        yield f"a block is not one of the {info.num_blocks}"


def _reaches(array: Int32, end: int) -> bool:
    """Whether a number is not within 0 ... end - 1."""
    if array.size <= FEW:
        numbers = array.tolist()
        return bool(min(numbers) < 0 or max(numbers) >= end)
    return int(np.maximum.reduce(array.view(np.uint32))) >= end  # a negative one is a large one


def _parts(starts: list[int], seq_lens: list[int], num_tokens: int) -> bool:
    """Whether the tokens are parted among the requests, none of which is shorter than its part."""
    parts = zip(starts, starts[1:], seq_lens, strict=False)
    return starts[0] == 0 and starts[-1] == num_tokens and all(0 <= end - at <= length for at, end, length in parts)


def _used(arrays: Arrays, info: RunnerInfo) -> Int32:
    """The blocks of the table that hold something: what stands behind them may be anything."""
    num_used = -(-arrays.seq_lens // info.block_size)
    return arrays.block_table[np.arange(arrays.block_table.shape[1]) < num_used[:, None]]
