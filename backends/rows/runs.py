"""Cutting a batch into runs of a compiled graph: windows of neighbouring rows, all padded to one width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...core.batch import Batch, Int32, Int64

Cover = Callable[[Int64], list[tuple[int, int]]]
"""(rising rows [n]) -> windows (first row, number of rows) that hold them all; rows without a request are holes."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run of a graph: some requests of a batch in a window of rows. Rows of the window without one are holes."""

    first_row: int
    num_rows: int  # of the window, holes included
    width: int  # tokens of the longest request
    requests: Int64  # [n] indices into the batch, by rising row
    rows: Int64  # [n] the requests' rows, counted from first_row
    query_lens: Int64  # [n]
    context_lens: Int64  # [n]
    tokens: Int64  # [t] places in the batch's T tokens, request by request
    logits: Int64  # [l] rows of the batch's L logits, rising within each request
    wanted: Int64  # [l] places in this run's t tokens whose logits those are


def rows_of(batch: Batch) -> Int32:
    """Return the row [N] that holds each request: its only block."""
    return batch.block_table[:, 0]


def plan_runs(batch: Batch, cover: Cover, *, widths: Sequence[int] = (1,)) -> list[Run]:
    """Cut a batch into runs; each request is in one of them.

    Requests of up to widths[0] tokens share windows, as do those above that and up to widths[1], and so on. Longer ones
    run alone. Within a window the shorter ones are padded. Carry out block_copies before any run.
    """
    lens, rows = batch.query_lens, rows_of(batch)
    runs: list[Run] = []
    for above, limit in pairwise((0, *widths)):
        members = np.flatnonzero((lens > above) & (lens <= limit))
        members = members[np.argsort(rows[members], kind="stable")]
        for first, count in cover(rows[members].astype(np.int64)) if len(members) else ():
            inside = (rows[members] >= first) & (rows[members] < first + count)
            runs.append(_run(batch, members[inside], first, count))
            members = members[~inside]  # windows may overlap
    longest = widths[-1] if widths else 0
    return runs + [
        _run(batch, np.array([index]), int(rows[index]), 1) for index in np.flatnonzero(lens > longest).tolist()
    ]


def _run(batch: Batch, requests: Int64, first: int, count: int) -> Run:
    starts = batch.query_start_loc[requests].astype(np.int64)
    lens = batch.query_lens[requests].astype(np.int64)
    ends = np.cumsum(lens)
    shift = np.repeat(starts - (ends - lens), lens)
    spans = np.searchsorted(batch.logits_indices, np.stack((starts, starts + lens)))
    logits = np.concatenate([np.arange(begin, end) for begin, end in spans.T]).astype(np.int64)
    places = batch.logits_indices[logits]
    owners = np.repeat(np.arange(len(requests)), spans[1] - spans[0])
    return Run(
        first_row=first,
        num_rows=count,
        width=int(lens.max()),
        requests=requests,
        rows=rows_of(batch)[requests].astype(np.int64) - first,
        query_lens=lens,
        context_lens=batch.context_lens[requests].astype(np.int64),
        tokens=np.arange(ends[-1]) + shift,
        logits=logits,
        wanted=places - starts[owners] + (ends - lens)[owners],
    )


def tight(rows: Int64) -> list[tuple[int, int]]:
    """Cover with one window from the first row to the last."""
    return [(int(rows[0]), int(rows[-1] - rows[0]) + 1)]


def aligned(num_rows: int, largest: int) -> Cover:
    """Return a cover by windows of few different places and sizes, for graphs that are recorded for each of them.

    A window has a power of two of rows, or `largest`, and begins at a multiple of that; the last ones are moved back
    into the num_rows that there are. So no row is in more than log2(largest) + 2 windows.
    """

    def cover(rows: Int64) -> list[tuple[int, int]]:
        windows = []
        for part in np.split(rows, np.flatnonzero(np.diff(rows // largest)) + 1):
            low, high = int(part[0]), int(part[-1])
            size = next(s for s in _sizes(largest) if low // s == high // s)
            first = min(low // size * size, max(num_rows - size, 0))
            windows.append((first, min(size, num_rows)))
        return windows

    return cover


def _sizes(largest: int) -> list[int]:
    """Powers of two below `largest`, then `largest`."""
    return [1 << bit for bit in range((largest - 1).bit_length())] + [largest]
