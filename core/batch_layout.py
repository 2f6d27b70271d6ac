"""Layout: the part of a batch that stays the same from step to step, which in a run of decodes is most of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .batch import Int32


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where tokens and draws stand while the same rows bring the same numbers of them. Nobody writes to the arrays."""

    rows: Int32  # [N]
    lens: Int32  # [N] tokens of each request
    query_start_loc: Int32  # [N + 1]
    owners: Int32  # [T] each token's request
    places: Int32  # [T] and its place in the query
    token_rows: Int32  # [T] and its row
    logits_offsets: Int32  # [N + 1] cumulative logits rows
    logits_indices: Int32  # [L]
    draw_rows: Int32  # [L] each draw's row
    is_plain: bool  # one token and one draw each: T, L and N are one

    @classmethod
    def of(cls, rows: Sequence[int], num_tokens: Sequence[int], num_logits: Sequence[int]) -> Layout:
        """Lay out N requests by row, number of tokens and number of logits rows, which are of the last tokens."""
        row_ids, lens, draws = (np.array(values, np.int32) for values in (rows, num_tokens, num_logits))
        starts, offsets = _offsets(lens), _offsets(draws)
        owners = np.arange(len(lens), dtype=np.int32).repeat(lens)
        return cls(
            rows=row_ids,
            lens=lens,
            query_start_loc=starts,
            owners=owners,
            places=np.arange(starts[-1], dtype=np.int32) - starts[owners],
            token_rows=row_ids[owners],
            logits_offsets=offsets,
            logits_indices=_ranges(starts[1:] - draws, draws, offsets),
            draw_rows=row_ids.repeat(draws),
            is_plain=bool((lens == 1).all() and (draws == 1).all()),
        )


def _offsets(lens: Int32) -> Int32:
    """[N] lengths to [N + 1] cumulative ones."""
    offsets = np.zeros(len(lens) + 1, np.int32)
    np.cumsum(lens, out=offsets[1:])
    return offsets


def _ranges(starts: Int32, lens: Int32, offsets: Int32) -> Int32:
    """Concatenate arange(start, start + len) over N, `offsets` [N + 1] being the cumulative lengths."""
    return (starts - offsets[:-1]).repeat(lens) + np.arange(offsets[-1], dtype=np.int32)
