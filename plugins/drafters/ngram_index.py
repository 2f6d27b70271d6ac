"""NgramIndex: where the last tokens of a growing text stood before, without ever looking through it again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LENGTHS = (3, 2)
"""Lengths of the n-grams looked up, the most telling first."""

BULK = 256
"""New tokens from which an index made at once, by sorting, is cheaper than one that grows token by token."""

MOST_AT_ONCE = 1 << 16
"""Tokens indexed in a call, some milliseconds of work: the index of a longer prompt takes some calls to catch up."""

_BITS = 21  # of a token id
_NO_TOKEN = (1 << _BITS) - 1  # before the first one


class NgramIndex:
    """The newest end of each n-gram of one text, the one at its very end left out."""

    def __init__(self) -> None:
        self._parts: list[_Sorted | _Growing] = [_Growing()]  # oldest first
        self._num_indexed = 0  # n-grams that end at or before this length are in

    def find(self, tokens: list[int]) -> int:
        """The length at which the text's longest known last n-gram ended before, the newest such; 0 if there is none.

        `tokens` is the whole text, longer than at the last call. Nothing is found while the index catches up with it.
        """
        self._extend(tokens)
        if self._num_indexed < len(tokens) - 1:
            return 0
        for length in LENGTHS:
            for part in reversed(self._parts):
                if len(tokens) > length and (end := part.find(tokens, length)):
                    return end
        return 0

    def _extend(self, tokens: list[int]) -> None:
        first, limit = self._num_indexed, len(tokens) - 1
        if limit - first >= BULK:
            limit = min(limit, first + MOST_AT_ONCE)
            self._parts += [_Sorted(tokens, first, limit), _Growing()]
        elif limit > first:
            part = self._parts[-1]
            assert isinstance(part, _Growing)
            part.extend(tokens, first, limit)
        self._num_indexed = max(limit, first)


class _Growing:
    """A dictionary for each length."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: list[int], first: int, limit: int) -> None:
        """Add the n-grams that end behind `first` and at or before `limit`."""
        for end in range(first + 1, limit + 1):
            for length in LENGTHS:
                if length <= end:
                    self._ends[tuple(tokens[end - length : end])] = end

    def find(self, tokens: list[int], length: int) -> int:
        return self._ends.get(tuple(tokens[-length:]), 0)


class _Sorted:
    """Keys of the last three tokens at each length, newest token first: n-grams with one end stand side by side."""

    def __init__(self, tokens: list[int], first: int, limit: int) -> None:
        before = tokens[max(first - 2, 0) : first]
        text = np.array([_NO_TOKEN] * (2 - len(before)) + before + tokens[first:limit], np.int64)
        keys = (text[2:] << 2 * _BITS) | (text[1:-1] << _BITS) | text[:-2]
        order = keys.argsort()
        self._keys: NDArray[np.int64] = keys[order]
        self._ends: NDArray[np.int64] = order + first + 1

    def find(self, tokens: list[int], length: int) -> int:
        low = (tokens[-1] << 2 * _BITS) | (tokens[-2] << _BITS) | (tokens[-3] if length == 3 else 0)
        begin, end = self._keys.searchsorted((low, low + (1 if length == 3 else 1 << _BITS)))
        return int(self._ends[begin:end].max(initial=0))
