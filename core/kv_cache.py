"""PagedKVCache: a pool of blocks with reference counts, chained hashes for prefix hits and lazy LRU eviction."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from .types import Request

if TYPE_CHECKING:
    from .interfaces import RunnerInfo

_DIGEST_BYTES = 16
_TOKEN_BYTES = array("i").itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class KVCacheConfig:
    """What is asked of a KV cache besides its size, which RunnerInfo gives."""

    prefix_caching: bool = True


class PagedKVCache:
    """Blocks of equal size, shared between requests whose tokens agree from the start up to the block's end.

    A block is published, that is, findable under its hash, once it is full of computed and accepted tokens. Its hash
    covers the salt and every token before it, so one look-up compares a whole prefix. A block that nobody refers to
    waits in `_free`, still published, until it is taken: eviction costs nothing until then.
    """

    def __init__(self, info: RunnerInfo, config: KVCacheConfig) -> None:
        self._block_size = info.block_size
        self._prefix_caching = config.prefix_caching
        self._num_refs = [0] * info.num_blocks
        self._hashes: list[bytes | None] = [None] * info.num_blocks  # of published blocks
        self._published: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(info.num_blocks))  # next to be taken first

    @property
    def block_size(self) -> int:
        """Tokens a block holds."""
        return self._block_size

    @property
    def num_blocks(self) -> int:
        """Blocks in the pool."""
        return len(self._num_refs)

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no request refers to, published ones included."""
        return len(self._free)

    def match_prefix(self, request: Request) -> int:
        """Attach the longest published prefix and set num_computed_tokens; always leaves a token to compute."""
        if not self._prefix_caching:
            return 0
        num_blocks = (len(request.token_ids) - 1) // self._block_size
        num_bytes = self._block_size * _TOKEN_BYTES
        tokens = memoryview(array("i", request.token_ids[: num_blocks * self._block_size]).tobytes())
        digest = _root(request.cache_salt)
        for start in range(0, num_blocks * num_bytes, num_bytes):
            digest = _chain(digest, tokens[start : start + num_bytes])
            block = self._published.get(digest)
            if block is None:
                break
            self._free.pop(block, None)
            self._num_refs[block] += 1
            request.block_ids.append(block)
            request.block_hashes.append(digest)
        request.num_computed_tokens = len(request.block_ids) * self._block_size
        return request.num_computed_tokens

    def allocate(self, request: Request, num_tokens: int) -> bool:
        """Grow the request to hold num_tokens. All or nothing; block tables are append-only."""
        missing = -(-num_tokens // self._block_size) - len(request.block_ids)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            request.block_ids.append(self._take())
        return True

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        digest = self._hashes[block]
        if digest is not None:  # evicted only now that the space is needed
            del self._published[digest]
            self._hashes[block] = None
        self._num_refs[block] = 1
        return block

    def commit(self, request: Request) -> None:
        """Publish blocks that became full of accepted, computed tokens."""
        if not self._prefix_caching:
            return
        hashes, size = request.block_hashes, self._block_size
        for index in range(len(hashes), request.num_computed_tokens // size):
            parent = hashes[-1] if hashes else _root(request.cache_salt)
            digest = _chain(parent, array("i", request.token_ids[index * size : (index + 1) * size]).tobytes())
            hashes.append(digest)
            if digest not in self._published:  # else a twin computed at the same time came first
                block = request.block_ids[index]
                self._published[digest] = block
                self._hashes[block] = digest

    def free(self, request: Request) -> None:
        """Release every block and set num_computed_tokens to 0. Published blocks stay matchable until evicted (LRU)."""
        for block in reversed(request.block_ids):  # tails are evicted before the heads that they depend on
            self._num_refs[block] -= 1
            if self._num_refs[block] == 0:
                self._free[block] = None
                if self._hashes[block] is None:  # holds nothing that could be found again: the first to be taken
                    self._free.move_to_end(block, last=False)
        request.block_ids, request.block_hashes = [], []
        request.num_computed_tokens = 0

    def take_block_copies(self) -> list[tuple[int, int, int]]:
        """Shared blocks need no copies."""
        return []

    def check(self, requests: Sequence[Request]) -> None:
        """Raise AssertionError if free, referenced and total blocks disagree, `requests` being all that hold blocks."""
        refs = Counter(block for request in requests for block in request.block_ids)
        for block, num_refs in enumerate(self._num_refs):
            assert num_refs == refs[block], f"block {block}: {num_refs} references counted, {refs[block]} held"
            assert (num_refs == 0) == (block in self._free), f"block {block} is both free and used, or neither"
        assert len(self._free) + len(refs) == self.num_blocks, "free and used blocks do not add up"
        for digest, block in self._published.items():
            assert self._hashes[block] == digest, f"block {block} is published under another block's hash"
        assert sum(digest is not None for digest in self._hashes) == len(self._published), "a stale hash is left"
        for request in requests:
            num_published = len(request.block_hashes) * self._block_size
            assert num_published <= request.num_computed_tokens <= len(request.block_ids) * self._block_size, (
                f"request {request.id}: {num_published} tokens published, {request.num_computed_tokens} computed, "
                f"{len(request.block_ids)} blocks"
            )


def _root(salt: bytes) -> bytes:
    return blake2b(salt, digest_size=_DIGEST_BYTES, person=b"salt").digest()


def _chain(parent: bytes, tokens: bytes | memoryview) -> bytes:
    digest = blake2b(parent, digest_size=_DIGEST_BYTES)
    digest.update(tokens)
    return digest.digest()
