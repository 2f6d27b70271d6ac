"""Tell a decode from a chunk of one prompt token: they look alike in a batch, and are computed by different kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Progress:
    """For each block the last unbroken range of positions that gave logits.

    A decode follows a position that gave logits, for its token was drawn from them. A single token after a position
    that gave none is the rest of a prompt, and is computed as the whole prompt would have been, so that cutting a
    prompt anywhere changes no bit. Running a batch again changes nothing.
    """

    def __init__(self, num_blocks: int) -> None:
        self._first: Int64 = np.zeros(num_blocks, np.int64)  # [blocks] the range is first <= position < end
        self._end: Int64 = np.zeros(num_blocks, np.int64)

    def follows_logits(self, blocks: Int64, positions: Int32) -> Bool:
        """Whether the position before each of `positions` [n] gave logits."""
        found: Bool = (self._first[blocks] < positions) & (positions <= self._end[blocks])
        return found

    def note_decodes(self, blocks: Int64, positions: Int64) -> None:
        """Decodes at `positions` [n], each after a position that gave logits, gave logits too."""
        self._end[blocks] = positions + 1

    def note(self, block: int, start: int, end: int, num_logits: int) -> None:
        """The last `num_logits` of positions `start` to `end` of a block gave logits."""
        first = end - num_logits
        goes_on = first == start and self._first[block] < start <= self._end[block]
        if not goes_on:
            self._first[block] = first
        self._end[block] = end

    def forget(self, block: int) -> None:
        """The block now holds tokens copied from another: nothing that follows is a decode yet."""
        self._first[block] = self._end[block] = 0
