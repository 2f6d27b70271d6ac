"""ModelDrafter: a small model guesses, drawing with the noise that the big one will draw with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...core.batch_builder import BatchBuilder
from ...core.interfaces import KVCache, RunnerInfo
from ...core.kv_cache import KVCacheConfig, PagedKVCache
from ...core.sampling import HostSampler
from ...core.types import Request, Scheduled
from ..kv_caches.contiguous import ContiguousKVCache
from . import DrafterContext


class ModelDrafter:
    """Runs a second runner beside the engine's, without a scheduler: as many forwards as the requests asked for need.

    Each request has a shadow: the same tokens with blocks and a row of the draft runner. A draft is drawn with the
    request's own parameters, seed and position, so that where the two models agree the two draws do too. When blocks
    or rows run out, shadows that were not asked for are given up; if that is not enough, nothing is proposed.
    """

    def __init__(self, context: DrafterContext) -> None:
        if context.load_runner is None:
            raise ValueError("drafter 'model' needs a draft model: name one with --draft-model (draft_model in Python)")
        self._context = context
        self._runner = context.load_runner()
        self._info = info = self._runner.info
        if info.vocab_size != context.info.vocab_size:
            self._runner.close()
            raise ValueError(
                f"the draft model's vocabulary has {info.vocab_size} tokens, the model's {context.info.vocab_size}"
            )
        self._sampler = self._runner.sampler or HostSampler()
        self._kv = _make_cache(info, context)
        self._builder = BatchBuilder(
            max_num_seqs=info.max_num_seqs, block_size=self._kv.block_size, vocab_size=info.vocab_size
        )
        self._shadows: dict[str, Request] = {}  # least recently asked for first
        self._free_rows = list(range(info.max_num_seqs))

    @property
    def propose_cost(self) -> float:
        """What a forward of the draft model costs in forwards of the model: both mostly read their weights."""
        weight_bytes = self._context.info.weight_bytes
        return self._info.weight_bytes / weight_bytes if weight_bytes else 0.0

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        """Draft for all requests together: first the tokens that the draft model lacks, then one token a forward."""
        asked = {request.id for request in requests if self._num_wanted(request) > 0}
        shadows = [self._follow(request, asked) if request.id in asked else None for request in requests]
        alive = [shadow for shadow in shadows if shadow is not None]
        self._catch_up(alive)
        for index in range(1, self._context.num_draft_tokens):
            alive = [shadow for shadow in alive if index < self._num_wanted(shadow) and not _has_ended(shadow)]
            plan = [Scheduled(shadow, len(shadow.token_ids) + index - 1, 1, 1, 1) for shadow in alive]
            for start in range(0, len(plan), self._info.max_num_batched_tokens):
                self._draw(plan[start : start + self._info.max_num_batched_tokens])
        return [[] if shadow is None else list(shadow.draft_ids) for shadow in shadows]

    def release(self, request_id: str) -> None:
        """Give up the shadow of a request that ended."""
        shadow = self._shadows.pop(request_id, None)
        if shadow is not None:
            self._kv.free(shadow)
            self._free_rows.append(shadow.row_id)

    def close(self) -> None:
        """Give back the draft model's memory."""
        self._shadows.clear()
        self._runner.close()

    def _num_wanted(self, request: Request) -> int:
        """Drafts that could be accepted, and whose positions the draft model has."""
        known = len(request.token_ids)
        return min(
            self._context.most_for(request), request.max_num_tokens - known - 1, self._info.max_model_len - known
        )

    def _follow(self, request: Request, asked: set[str]) -> Request | None:
        """Bring the request's shadow up to date, with room for its drafts; None if there is none to be had."""
        shadow = self._shadows.pop(request.id, None) or self._open(request, asked)
        if shadow is None:
            return None
        self._shadows[request.id] = shadow  # now the most recently asked for
        new = request.token_ids[len(shadow.token_ids) :]
        num_right = _num_equal(shadow.draft_ids[:-1], new)  # the last draft was drawn but never computed
        shadow.num_computed_tokens = min(shadow.num_computed_tokens + num_right, len(request.token_ids) - 1)
        shadow.token_ids += new
        shadow.draft_ids = []
        shadow.max_drafts = request.max_drafts
        self._kv.commit(shadow)
        while not self._kv.allocate(shadow, len(shadow.token_ids) + self._num_wanted(shadow) - 1):
            if not self._give_up_idle(asked):
                return None
        return shadow

    def _open(self, request: Request, asked: set[str]) -> Request | None:
        if not self._free_rows and not self._give_up_idle(asked):
            return None
        shadow = Request(
            id=request.id,
            token_ids=list(request.token_ids),
            num_prompt_tokens=request.num_prompt_tokens,
            params=replace(request.params, num_logprobs=None, num_prompt_logprobs=None),
            cache_salt=request.cache_salt,
            row_id=self._free_rows.pop(),
            end_token_ids=request.end_token_ids,
            max_num_tokens=request.max_num_tokens,
        )
        self._kv.match_prefix(shadow)
        return shadow

    def _give_up_idle(self, asked: set[str]) -> bool:
        """Release the shadow that was asked for least recently and is not now; False if there is none."""
        idle = next((request_id for request_id in self._shadows if request_id not in asked), None)
        if idle is None:
            return False
        self.release(idle)
        return True

    def _catch_up(self, shadows: Sequence[Request]) -> None:
        """Compute the known tokens that the draft model lacks, and draw each shadow's first draft."""
        lacking = list(shadows)
        while lacking:
            plan: list[Scheduled] = []
            budget = self._info.max_num_batched_tokens
            for shadow in lacking:
                start, known = shadow.num_computed_tokens, len(shadow.token_ids)
                num_tokens = min(known - start, budget)
                if num_tokens:
                    plan.append(Scheduled(shadow, start, num_tokens, 0, int(start + num_tokens == known)))
                budget -= num_tokens
            self._draw(plan)
            for share in plan:
                share.request.num_computed_tokens += share.num_tokens
                self._kv.commit(share.request)
            lacking = [shadow for shadow in lacking if shadow.num_computed_tokens < len(shadow.token_ids)]

    def _draw(self, plan: list[Scheduled]) -> None:
        """Run a plan and append what it draws to the drafts."""
        batch = self._builder.build(plan, self._kv.take_block_copies())
        logits = self._runner.forward(batch)
        if not len(batch.logits_indices):
            return
        tokens = self._sampler.sample(logits, batch.sampling).token_ids.tolist()
        drawing = (share.request for share in plan if share.num_logits)
        for shadow, token in zip(drawing, tokens, strict=True):
            shadow.draft_ids.append(token)


def _make_cache(info: RunnerInfo, context: DrafterContext) -> KVCache:
    """Return the cache that suits the draft runner's blocks."""
    if info.block_size < info.max_model_len:
        return PagedKVCache(info, KVCacheConfig(prefix_caching=context.prefix_caching))
    return ContiguousKVCache(info, KVCacheConfig(prefix_caching=context.block_copies))


def _has_ended(shadow: Request) -> bool:
    """Whether its newest draft would end it."""
    return shadow.draft_ids[-1] in shadow.end_token_ids


def _num_equal(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens agree."""
    return next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
