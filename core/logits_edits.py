"""LogitsEdits: what one request's parameters do to its logits before a token is drawn, as sparse rows."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from .batch import Float32, Int32, UInt32
from .types import Request

Piece = tuple[Int32, Float32]
"""Distinct token ids [n] and what is added to their logits [n]."""


class SparseRows:
    """(row, id, value) triples of many requests, gathered row by row."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._ids: list[Int32] = []
        self._values: list[Float32] = []

    def append(self, row: int, ids: Int32, values: Float32) -> None:
        """Add one row's ids [n] and values [n], which must not change any more."""
        self._rows.append(row)
        self._ids.append(ids)
        self._values.append(values)

    def arrays(self) -> tuple[Int32, Int32, Float32]:
        """Rows, ids and values, one after the other."""
        if not self._rows:
            return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)
        rows = np.array(self._rows, np.int32).repeat([len(ids) for ids in self._ids])
        return rows, np.concatenate(self._ids), np.concatenate(self._values)


class TokenCounts:
    """How often each token occurred, in order of first occurrence; the newest occurrence can be taken back."""

    def __init__(self, tokens: Sequence[int]) -> None:
        ids, counts = np.unique(np.array(tokens, np.int32), return_counts=True)
        self._size = len(ids)
        self._ids = np.concatenate([ids, np.zeros(64, np.int32)])  # [capacity], grows
        self._counts = np.concatenate([counts.astype(np.int32), np.zeros(64, np.int32)])  # [capacity]
        self._slots = {token: slot for slot, token in enumerate(ids.tolist())}

    def add(self, token: int) -> None:
        """Count one more occurrence."""
        slot = self._slots.setdefault(token, self._size)
        if slot == self._size:
            if slot == len(self._ids):
                self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._ids[slot], self._counts[slot] = token, 0
            self._size += 1
        self._counts[slot] += 1

    def take_back(self, token: int) -> None:
        """Undo the newest add."""
        slot = self._slots[token]
        self._counts[slot] -= 1
        if not self._counts[slot]:
            self._size -= 1
            del self._slots[token]

    def ids(self) -> Int32:
        """A copy of the distinct tokens [n]."""
        return self._ids[: self._size].copy()

    def counts(self) -> Int32:
        """A copy of their counts [n]."""
        return self._counts[: self._size].copy()


class LogitsEdits:
    """The penalties, biases, bans and mask of one request, kept up as its tokens grow.

    For a verify row the drafts before it count as output, for it is only read if they were right.
    """

    def __init__(self, request: Request, vocab_size: int) -> None:
        params = request.params
        self._request = request
        self._num_counted = len(request.token_ids)
        self._seen = self._output = None
        if params.repetition_penalty != 1.0:
            self._seen = TokenCounts(request.token_ids)
        if params.presence_penalty or params.frequency_penalty:
            self._output = TokenCounts(request.token_ids[request.num_prompt_tokens :])
        single = {word[0] for word in params.bad_words_ids if len(word) == 1}
        self._words = [word for word in params.bad_words_ids if len(word) > 1]
        self._fixed = _sum_by_id([_piece(list(params.logit_bias), list(params.logit_bias.values())), _ban(single)])
        self.mask: UInt32 | None = None  # [ceil(V / 32)]
        if params.allowed_token_ids is not None:
            self.mask = pack_mask(params.allowed_token_ids, vocab_size)

    @staticmethod
    def wanted(request: Request) -> bool:
        """Whether the request asks for any edit at all; most do not, and pay nothing."""
        params = request.params
        return bool(
            params.repetition_penalty != 1.0
            or params.presence_penalty
            or params.frequency_penalty
            or params.logit_bias
            or params.bad_words_ids
            or params.allowed_token_ids is not None
            or (params.min_tokens and request.end_token_ids)
        )

    def append_to(
        self, penalties: SparseRows, biases: SparseRows, first_row: int, num_drafts: int, num_draws: int
    ) -> None:
        """Append the edits of `num_draws` rows from `first_row` on, the first of which follows `num_drafts` drafts."""
        known = self._request.token_ids
        for token in known[self._num_counted :]:
            self._count(token)
        self._num_counted = len(known)
        drafts = self._request.draft_ids[: num_drafts + num_draws - 1]
        for token in drafts[:num_drafts]:
            self._count(token)
        for index in range(num_draws):
            if index:
                self._count(drafts[num_drafts + index - 1])
            self._append_row(penalties, biases, first_row + index, drafts[: num_drafts + index])
        for token in reversed(drafts):
            self._uncount(token)

    def _count(self, token: int) -> None:
        for counts in (self._seen, self._output):
            if counts is not None:
                counts.add(token)

    def _uncount(self, token: int) -> None:
        for counts in (self._seen, self._output):
            if counts is not None:
                counts.take_back(token)

    def _append_row(self, penalties: SparseRows, biases: SparseRows, row: int, drafts: list[int]) -> None:
        params = self._request.params
        if self._seen is not None:
            ids = self._seen.ids()
            penalties.append(row, ids, np.full(len(ids), params.repetition_penalty, np.float32))
        pieces = [self._fixed]
        if self._output is not None:
            counts = self._output.counts().astype(np.float32)
            taxes = np.float32(params.presence_penalty) + np.float32(params.frequency_penalty) * counts
            pieces.insert(0, (self._output.ids(), -taxes))
        if bans := self._bans(drafts):
            pieces.append(_ban(bans))
        biases.append(row, *_sum_by_id([piece for piece in pieces if len(piece[0])] or [self._fixed]))

    def _bans(self, drafts: list[int]) -> set[int]:
        """Tokens banned only here: those that end it too early, and those that complete a bad word."""
        request = self._request
        bans: set[int] = set()
        if request.num_output_tokens + len(drafts) < request.params.min_tokens:
            bans |= request.end_token_ids
        for word in self._words:
            num_tokens = len(word) - 1
            tail = request.token_ids[-num_tokens:] + drafts
            if tuple(tail[-num_tokens:]) == word[:-1]:
                bans.add(word[-1])
        return bans


def pack_mask(allowed_ids: Sequence[int], vocab_size: int) -> UInt32:
    """Set bit i of word w for each allowed token 32 * w + i; [ceil(V / 32)]."""
    bits = np.zeros(-(-vocab_size // 32) * 32, np.uint8)
    bits[np.array(allowed_ids, np.int64)] = 1
    packed = np.packbits(bits, bitorder="little").view("<u4")
    return packed.astype(np.uint32)


def _piece(ids: Sequence[int], values: Sequence[float]) -> Piece:
    return np.array(ids, np.int32), np.array(values, np.float32)


def _ban(ids: Set[int]) -> Piece:
    return _piece(sorted(ids), [-np.inf] * len(ids))


def _sum_by_id(pieces: list[Piece]) -> Piece:
    """Sum the values of equal ids piece by piece in float32, so that each id stands once."""
    if len(pieces) == 1:
        return pieces[0]
    ids = np.concatenate([ids for ids, _ in pieces])
    unique, inverse = np.unique(ids, return_inverse=True)
    sums = np.zeros(len(unique), np.float32)
    np.add.at(sums, inverse, np.concatenate([values for _, values in pieces]))
    return unique, sums
