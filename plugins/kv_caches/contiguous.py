"""ContiguousKVCache: one row of max_model_len tokens for each request; prefix hits are copies from other rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from ...core.interfaces import RunnerInfo
from ...core.kv_cache import KVCacheConfig
from ...core.sharing import common_prefix
from ...core.types import Request

_MIN_MATCH = 16
"""Tokens below which computing is cheaper than copying."""


class ContiguousKVCache:
    """A paged cache whose blocks hold whole requests, for runtimes that want one linear row per sequence.

    A row that cannot be shared is copied: from whichever row, running or free, agrees longest with the new request. A
    free row keeps its tokens until it is taken, least recently used first. A row copied from stays as it is until the
    copy was carried out, so it counts as taken for the rest of the step.

    Where the runner has rows for more tokens than memory, each request is admitted with room for all that it may grow
    to, and free rows forget their tokens, least recently used first, to make that room.
    """

    def __init__(self, info: RunnerInfo, config: KVCacheConfig) -> None:
        if info.block_size < info.max_model_len:
            raise ValueError(
                f"the contiguous cache needs blocks of max_model_len={info.max_model_len} tokens, "
                f"the runner has block_size={info.block_size}"
            )
        self._block_size = info.block_size
        self._prefix_caching = config.prefix_caching
        self._owners: list[Request | None] = [None] * info.num_blocks
        self._held: list[list[int]] = [[] for _ in range(info.num_blocks)]  # tokens of free rows
        self._salts = [b""] * info.num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(info.num_blocks))  # next to be taken first
        self._copies: dict[int, tuple[int, int]] = {}  # to: (from, tokens)
        self._room = info.max_cached_tokens or info.num_blocks * info.block_size  # tokens left beside those counted
        self._counted = [0] * info.num_blocks  # tokens that each row holds or may grow to
        self._cut: dict[int, int] = {}  # rows of whose tokens the runner is to keep only so many
        self._tells = info.max_cached_tokens > 0  # whether the runner wants to know

    @property
    def block_size(self) -> int:
        """Tokens a row holds."""
        return self._block_size

    @property
    def num_blocks(self) -> int:
        """Rows."""
        return len(self._owners)

    @property
    def num_free_blocks(self) -> int:
        """Rows that can be taken now."""
        return len(self._free) - len(self._reserved())

    def match_prefix(self, request: Request) -> int:
        """Take a row and fill it with the longest known prefix, by copying where it is another's."""
        if not self._prefix_caching:
            return 0
        num_tokens, source = max(
            ((self._num_common(row, request), row) for row in range(self.num_blocks)),
            key=lambda pair: (pair[0], pair[1] in self._free),  # a free row before a running one
        )
        if num_tokens < _MIN_MATCH:
            return 0
        reserved = self._reserved()
        others = [row for row in self._free if row != source and row not in reserved]
        in_place = source in self._free and source not in reserved  # possible
        if in_place and num_tokens == len(self._held[source]):  # nothing is lost by going on there
            others = []
        if others and self._assign(request, others[0], spared=source):
            self._copies[others[0]] = (source, num_tokens)
        elif not in_place or not self._assign(request, source, num_kept=num_tokens):
            return 0
        request.num_computed_tokens = num_tokens
        return num_tokens

    def _num_common(self, row: int, request: Request) -> int:
        """How many tokens in a row are the request's, its last one left to compute."""
        if row in self._copies or self._salts[row] != request.cache_salt:  # not there yet, or not for this request
            return 0
        owner = self._owners[row]
        held = self._held[row] if owner is None else owner.token_ids
        num_held = len(held) if owner is None else owner.num_computed_tokens
        return common_prefix(held, request.token_ids, min(num_held, len(request.token_ids) - 1))

    def _count(self, row: int, num_tokens: int) -> None:
        self._room += self._counted[row] - num_tokens
        self._counted[row] = num_tokens

    def _reserved(self) -> set[int]:
        return {source for source, _ in self._copies.values() if source in self._free}

    def _assign(self, request: Request, row: int, *, num_kept: int = 0, spared: int = -1) -> bool:
        """Give the request a free row, and room for all that it may grow to; False if there is no room.

        To make room other free rows forget what they hold, but for `spared` and those about to be copied. `num_kept`
        tokens of the row itself are the request's.
        """
        need = min(max(request.max_num_tokens, len(request.token_ids)), self._block_size)
        kept = self._reserved() | {row, spared}
        others = (other for other in self._free if other not in kept and self._counted[other])
        while self._room + self._counted[row] < need:
            other = next(others, None)
            if other is None:
                return False
            self._held[other] = []
            self._count(other, 0)
            self._cut[other] = 0
        self._cut.pop(row, None)
        if num_kept:  # another request goes on there, and may not need as much room
            self._cut[row] = num_kept
        del self._free[row]
        self._owners[row], self._held[row], self._salts[row] = request, [], request.cache_salt
        self._count(row, need)
        request.block_ids.append(row)
        return True

    def allocate(self, request: Request, num_tokens: int) -> bool:
        """Give the request a row if it has none."""
        if num_tokens > self._block_size:
            return False
        if request.block_ids:
            return True
        reserved = self._reserved()
        row = next((row for row in self._free if row not in reserved), None)
        return row is not None and self._assign(request, row)

    def commit(self, request: Request) -> None:
        """Nothing to do: rows are compared by the tokens of those who hold them."""

    def free(self, request: Request) -> None:
        """Release the row. Its tokens can be found until it is taken (LRU)."""
        for row in request.block_ids:
            arrived = self._copies.pop(row, None) is None
            self._owners[row] = None
            self._held[row] = request.token_ids[: request.num_computed_tokens] if arrived else []
            self._free[row] = None
            self._count(row, len(self._held[row]))
            if not self._held[row]:
                self._free.move_to_end(row, last=False)
        request.block_ids, request.block_hashes = [], []
        request.num_computed_tokens = 0

    def take_block_copies(self) -> list[tuple[int, int, int]]:
        """(from row, to row, tokens) to be carried out before the next forward; to itself: where a row is cut."""
        copies = [(source, target, num_tokens) for target, (source, num_tokens) in self._copies.items()]
        self._copies.clear()
        if self._tells:
            copies += [(row, row, num_kept) for row, num_kept in sorted(self._cut.items())]
        self._cut.clear()
        return copies

    def check(self, requests: Sequence[Request]) -> None:
        """Raise AssertionError if free, held and total rows disagree, `requests` being all that hold rows."""
        rows = [row for request in requests for row in request.block_ids]
        assert len(rows) == len(set(rows)), "two requests hold one row"
        assert len(rows) + len(self._free) == self.num_blocks, "free and held rows do not add up"
        assert self._room >= 0, "more tokens are promised room than there is"
        for request in requests:
            assert request.num_computed_tokens <= len(request.block_ids) * self._block_size, request.id
            assert all(self._owners[row] is request for row in request.block_ids), f"{request.id} does not own its row"
