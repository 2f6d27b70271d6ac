"""Which row of memory each block lies in: those that decode together are brought together, so windows are dense."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

PARAMETERS_PER_BYTE = 12
"""A decode row costs about two operations a parameter, a byte moved an eighth of a nanosecond: with some 200 GFLOP/s
a row that decodes for nobody takes as long as moving a byte for every twelve parameters. It need not be exact."""


class Rows(Protocol):
    """K/V memory in rows [2 * layers, rows, kv_heads, positions, D], a numpy array or a torch tensor."""

    @property
    def array(self) -> Any:
        """All rows."""
        ...

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, all layers together."""
        ...

    def touch(self, rows: Int64 | int, ends: Int64 | int) -> None:
        """Take note that positions up to `ends` of `rows` are about to be written."""
        ...

    def renew(self, row: int, end: int) -> None:
        """Take note that a row begins anew and is filled up to `end`."""
        ...

    def close(self) -> None:
        """Give back everything. Calling it twice is harmless."""
        ...


class Placement:
    """The engine's blocks in the runner's rows, one in each, and how many tokens of each are worth keeping.

    A decode runs over a window of neighbouring rows, so rows in between that are not asked for, holes, are computed for
    nobody. A hole may be gone in the next step, when its request decodes again, or stay; moving tokens closes it for
    good. So holes are borne until what they have cost would have paid for the move: never more than twice the least.
    """

    def __init__(self, rows: Rows, num_rows: int, num_parameters: int) -> None:
        self._rows = rows
        self._row_of: Int64 = np.arange(num_rows)  # [blocks]
        self._block_in: Int64 = np.arange(num_rows)  # [rows]
        self._filled: Int64 = np.zeros(num_rows, np.int64)  # [blocks] tokens that somebody may still need
        self._hole_cost = max(num_parameters // PARAMETERS_PER_BYTE, 1)  # bytes
        self._debt = 0
        self.num_moves = 0

    def row(self, block: int) -> int:
        """The row that holds a block."""
        return int(self._row_of[block])

    def write(self, block: int, start: int, end: int) -> int:
        """Take note that positions `start` to `end` of a block are about to be written; return its row."""
        row = int(self._row_of[block])
        if start == 0:
            self._rows.renew(row, end)
        else:
            self._rows.touch(row, end)
        self._filled[block] = end
        return row

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first tokens of a block to another; to itself: it need not hold more than these."""
        if source == target:
            self._filled[target] = min(int(self._filled[target]), num_tokens)
            self._rows.renew(self.row(target), num_tokens)
        else:
            one, other = self.row(source), self.write(target, 0, num_tokens)
            for part in self._rows.array:  # one by one: numpy then sees that the two do not overlap
                part[other, :, :num_tokens] = part[one, :, :num_tokens]

    def window(self, blocks: Int64, ends: Int64) -> tuple[int, int, Int64]:
        """Find the rows for one more token of each block, at positions `ends` - 1.

        Returns the window's first row, its number of rows, and the place of each block in it [n].
        """
        self._filled[blocks] = ends
        rows = self._row_of[blocks]
        first = int(rows.min())
        count = int(rows.max()) - first + 1
        if count > len(blocks):
            self._debt += (count - len(blocks)) * self._hole_cost
            if self._close_up(rows):
                rows = self._row_of[blocks]
                first, count = int(rows.min()), len(blocks)
        else:
            self._debt = 0
        self._rows.touch(rows, ends)
        return first, count, rows - first

    def advance(self, blocks: Int64, ends: Int64) -> None:
        """Take note that blocks now hold `ends` tokens, written where they lie."""
        self._filled[blocks] = ends
        self._rows.touch(self._row_of[blocks], ends)

    def _close_up(self, rows: Int64) -> bool:
        """Bring scattered `rows` [n] together if that is worth it by now."""
        taken = np.sort(rows)
        fits = np.searchsorted(taken, taken + len(taken))  # [n] end of the members of the window that begins at each
        begin = int(np.argmax(fits - np.arange(len(taken))))
        low = min(int(taken[begin]), len(self._row_of) - len(taken))
        inside = (taken >= low) & (taken < low + len(taken))
        strangers = np.setdiff1d(np.arange(low, low + len(taken)), taken, assume_unique=True)
        movers = taken[~inside]
        num_tokens = int(self._filled[self._block_in[movers]].sum() + self._filled[self._block_in[strangers]].sum())
        if num_tokens * self._rows.token_bytes > self._debt:
            return False
        for one, other in zip(movers.tolist(), strangers.tolist(), strict=True):
            self._swap(one, other)
        self._debt = 0
        return True

    def _swap(self, one: int, other: int) -> None:
        """Let two rows change places, as far as they are filled."""
        array = self._rows.array
        first, second = int(self._block_in[one]), int(self._block_in[other])
        n, m = int(self._filled[first]), int(self._filled[second])
        self._rows.touch(other, n)
        self._rows.touch(one, m)
        for part in array:  # by layer, so that what is set aside stays in the cache
            kept = part[other, :, :m] + 0  # a copy
            part[other, :, :n] = part[one, :, :n]
            part[one, :, :m] = kept
        self._rows.renew(other, n)
        self._rows.renew(one, m)
        self._row_of[first], self._row_of[second] = other, one
        self._block_in[one], self._block_in[other] = second, first
        self.num_moves += 1
