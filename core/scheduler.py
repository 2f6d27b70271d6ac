"""ContinuousScheduler: every step, each request gets the tokens it lacks, first come first served."""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .batch import Sampled
from .fold import fold, is_scoring
from .sharing import PrefixWait
from .types import FinishReason, Request, RequestOutput, Scheduled
from .validation import validate

if TYPE_CHECKING:
    from .interfaces import KVCache, RunnerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """The limits that a scheduler obeys, as RunnerInfo granted them."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_logits: int  # at least max_num_seqs
    max_model_len: int
    vocab_size: int
    eos_token_ids: frozenset[int] = frozenset()

    @classmethod
    def from_info(cls, info: RunnerInfo) -> SchedulerConfig:
        """Take the runner at its word."""
        return cls(
            max_num_seqs=info.max_num_seqs,
            max_num_batched_tokens=info.max_num_batched_tokens,
            max_num_logits=info.max_num_logits,
            max_model_len=info.max_model_len,
            vocab_size=info.vocab_size,
            eos_token_ids=info.eos_token_ids,
        )


def _order(request: Request) -> tuple[int, int]:
    return request.priority, request.arrival


class ContinuousScheduler:
    """Catches every request's computed length up with its known and drafted length; there are no phases.

    Requests are served by priority, then arrival. When blocks run out the last in that order is preempted: its blocks
    are freed, it waits again in its old place, and what it had is computed anew (mostly found in the prefix cache).
    A request that begins with what is being computed for another comes when it can be found there (core.sharing).
    """

    def __init__(
        self, kv_cache: KVCache, config: SchedulerConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if config.max_num_logits < config.max_num_seqs:
            raise ValueError(f"max_num_logits={config.max_num_logits} is below max_num_seqs={config.max_num_seqs}")
        self._kv = kv_cache
        self._config = config
        self._clock = clock
        self._max_len = min(config.max_model_len, kv_cache.num_blocks * kv_cache.block_size)
        self._requests: dict[str, Request] = {}  # all that are here
        self._waiting: list[Request] = []  # in _order, as the next
        self._running: list[Request] = []
        self._free_rows = list(range(config.max_num_seqs))  # heap: rows stay dense at the low end
        self._deadlines: list[tuple[float, int, str]] = []  # heap of (deadline, arrival, id)
        self._expired: list[RequestOutput] = []  # reported by the next update
        self._blocked: tuple[Request, int] | None = None  # the request that did not fit, and the free blocks then
        self._wait = PrefixWait(kv_cache.block_size, self._max_len)
        self._num_arrivals = 0
        self._num_preemptions = 0
        self._num_prefix_queries = 0
        self._num_prefix_hits = 0

    @property
    def has_work(self) -> bool:
        """Whether anything waits, runs or is to be reported."""
        return bool(self._requests or self._expired)

    @property
    def num_running(self) -> int:
        """Requests that hold a row."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that hold nothing yet, or nothing any more."""
        return len(self._waiting)

    @property
    def num_preemptions(self) -> int:
        """Since construction, as the next two."""
        return self._num_preemptions

    @property
    def num_prefix_queries(self) -> int:
        """Prompt tokens looked up in the prefix cache when their request was first admitted."""
        return self._num_prefix_queries

    @property
    def num_prefix_hits(self) -> int:
        """Of those, the tokens found."""
        return self._num_prefix_hits

    # --- coming and going -----------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Queue it. Raises ValueError if it could never fit the cache or max_model_len, or names unknown tokens."""
        if request.id in self._requests:
            raise ValueError(f"request {request.id!r} is already here")
        params = request.params
        eos_token_ids = frozenset() if params.ignore_eos else self._config.eos_token_ids
        request.end_token_ids = params.stop_token_ids | eos_token_ids
        validate(request, self._max_len, self._config.vocab_size)
        request.arrival = self._num_arrivals
        self._num_arrivals += 1
        request.allowed_ids = None if params.allowed_token_ids is None else frozenset(params.allowed_token_ids)
        request.max_num_tokens = min(request.num_prompt_tokens + params.max_tokens, self._max_len)
        self._requests[request.id] = request
        insort(self._waiting, request, key=_order)
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, request.arrival, request.id))

    def abort(self, request_id: str) -> bool:
        """Drop the request and free its blocks, whatever its state. False if it is not here (any more)."""
        request = self._requests.get(request_id)
        if request is None:
            return False
        self._end(request, FinishReason.ABORT)
        return True

    def fail(self, request: Request, error: str) -> RequestOutput:
        """End a request with FinishReason.ERROR and free its blocks."""
        request.num_computed_tokens = 0  # the copy of a prefix for it may not have been carried out
        return self._end_early(request, FinishReason.ERROR, error)

    def _end_early(self, request: Request, reason: FinishReason, error: str | None = None) -> RequestOutput:
        self._end(request, reason)
        return RequestOutput(
            request_id=request.id,
            token_ids=[],
            finish_reason=reason,
            num_cached_tokens=request.num_cached_tokens,
            error=error,
        )

    def _end(self, request: Request, reason: FinishReason) -> None:
        request.finish_reason = reason
        del self._requests[request.id]
        if request.row_id >= 0:
            self._running.remove(request)
            self._release(request)
        else:
            del self._waiting[bisect_left(self._waiting, _order(request), key=_order)]
            self._wait.forget(request)

    def _release(self, request: Request) -> None:
        self._kv.free(request)
        request.draft_ids = []
        heapq.heappush(self._free_rows, request.row_id)
        request.row_id = -1

    def _expire(self) -> None:
        now = self._clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, arrival, request_id = heapq.heappop(self._deadlines)
            request = self._requests.get(request_id)
            if request is not None and request.arrival == arrival:
                self._expired.append(self._end_early(request, FinishReason.TIMEOUT))

    # --- planning a step ------------------------------------------------------------------------

    def schedule(self) -> list[Scheduled]:
        """Give requests tokens so that num_computed_tokens catches up with the known and drafted length.

        An empty plan while has_work means that only requests with a past deadline are left to report: call update.
        """
        if self._deadlines:
            self._expire()
        plan: list[Scheduled] = []
        num_preemptions = self._num_preemptions
        budget, spare = self._plan_running(plan)
        if self._waiting and self._num_preemptions == num_preemptions:
            self._admit(plan, budget, spare)
        return plan

    def _budget(self) -> int:
        """Tokens for the step planned now: at least one for each running request, as far as the runner takes them."""
        return self._config.max_num_batched_tokens

    def _plan_running(self, plan: list[Scheduled]) -> tuple[int, int]:
        """Plan the running requests; returns the tokens and logits rows left. One of each is set aside for everybody.

        So a stream gets its token beside any prompt, whichever comes first, and waits for one chunk of it at most.
        """
        running, block_size = self._running, self._kv.block_size
        budget = self._budget()
        spare = self._config.max_num_logits - len(running)
        index = 0
        while index < len(running) and budget:
            request = running[index]
            start = request.num_computed_tokens
            if request.draft_ids or start + 1 < len(request.token_ids):
                num_behind = len(running) - index - 1
                share = self._share(request, max(budget - num_behind, 1), spare)
            else:
                share = Scheduled(request, start, 1, 0, 1)
            if start + share.num_tokens > len(request.block_ids) * block_size:
                fitted = self._make_room(share, budget, spare)
                if fitted is None:
                    break
                share = fitted
            plan.append(share)
            budget -= share.num_tokens
            spare -= max(share.num_logits - 1, 0)
            index += 1
        return budget, spare

    def _make_room(self, share: Scheduled, budget: int, spare: int) -> Scheduled | None:
        """Allocate for `share`, at the cost of its drafts, then of the newest requests; None if it was the newest."""
        request = share.request
        while not self._kv.allocate(request, share.start + share.num_tokens):
            if share.num_drafts:
                request.draft_ids = []
                share = self._share(request, budget, spare)
                continue
            victim = self._running.pop()
            self._preempt(victim)
            if victim is request:
                return None
        return share

    def _preempt(self, request: Request) -> None:
        self._release(request)
        request.num_preemptions += 1
        self._num_preemptions += 1
        insort(self._waiting, request, key=_order)

    def _share(self, request: Request, budget: int, spare: int) -> Scheduled:
        """Cut the request's next query out of `budget` tokens and one logits row plus `spare` others."""
        start, known = request.num_computed_tokens, len(request.token_ids)
        end = min(known, start + budget)
        if is_scoring(request):
            if known > request.num_prompt_tokens:  # replayed: rows between the prompt's and the last are not wanted
                end = min(end, request.num_prompt_tokens - 1)
            first = max(start, request.num_scored_tokens)
            end = min(end, first + 1 + spare)
            return Scheduled(request, start, end - start, 0, max(end - first, 0))
        if end < known:
            return Scheduled(request, start, end - start, 0, 0)
        num_drafts = min(len(request.draft_ids), start + budget - end, spare, request.max_num_tokens - known - 1)
        num_drafts = max(num_drafts, 0)
        return Scheduled(request, start, end - start + num_drafts, num_drafts, 1 + num_drafts)

    def _admit(self, plan: list[Scheduled], budget: int, spare: int) -> None:
        """Admit who waits, in order. Who is better off a step later is passed over, but its row and blocks are kept."""
        num_passed = num_kept = 0  # requests, and blocks for them
        while budget and spare > 0 and len(self._running) + num_passed < self._config.max_num_seqs:
            request = self._next_waiting(num_passed)
            if request is None:
                break
            num_blocks = -(-len(request.token_ids) // self._kv.block_size)
            if self._wait.is_better(request, plan):
                num_passed, num_kept = num_passed + 1, num_kept + num_blocks
                continue
            if (num_passed and num_kept + num_blocks > self._kv.num_free_blocks) or not self._attach(request):
                break
            self._waiting.remove(request)
            insort(self._running, request, key=_order)
            request.row_id = heapq.heappop(self._free_rows)
            spare -= 1
            share = self._share(request, budget, spare)
            plan.append(share)
            budget -= share.num_tokens
            spare -= max(share.num_logits - 1, 0)

    def _next_waiting(self, num_passed: int) -> Request | None:
        """The request to admit next, behind the first `num_passed` that might be; None to admit nobody now."""
        return self._waiting[num_passed] if num_passed < len(self._waiting) else None

    def _attach(self, request: Request) -> bool:
        """Give a waiting request blocks for all that it knows, or nothing."""
        free_blocks = self._kv.num_free_blocks
        if self._blocked is not None and self._blocked[0] is request and free_blocks <= self._blocked[1]:
            return False  # nothing was freed since it last did not fit
        looks_up = not is_scoring(request)  # scoring needs the logits of every position
        num_hits = self._kv.match_prefix(request) if looks_up else 0
        if not self._kv.allocate(request, len(request.token_ids)):
            self._kv.free(request)
            self._blocked = (request, free_blocks)
            return False
        self._blocked = None
        self._wait.note_admitted(request, num_hits)
        if not request.num_preemptions:
            request.num_cached_tokens = min(num_hits, request.num_prompt_tokens)
            self._num_prefix_queries += request.num_prompt_tokens if looks_up else 0
            self._num_prefix_hits += request.num_cached_tokens
        return True

    # --- folding the results in -----------------------------------------------------------------

    def update(self, plan: Sequence[Scheduled], sampled: Sampled) -> list[RequestOutput]:
        """Fold sampled tokens in. Afterwards num_computed_tokens == len(token_ids) - 1 for every sampled request.

        Also reports requests that ended without being scheduled (a past deadline).
        """
        outputs, self._expired = self._expired, []
        tokens: list[int] = sampled.token_ids.tolist()
        block_size = self._kv.block_size
        end = 0
        for request, start, num_tokens, _, num_logits in plan:
            row, end = end, end + num_logits
            if request.finish_reason is not None:  # left while the step was computed
                continue
            output = fold(request, sampled, tokens, row, end) if num_logits else None
            computed = min(start + num_tokens, len(request.token_ids) - 1)  # rejected drafts vanish here
            request.num_computed_tokens = computed
            if computed % block_size < computed - start:  # a block became full
                self._kv.commit(request)
            if output is not None:
                outputs.append(output)
                if output.finish_reason is not None:
                    self._end(request, output.finish_reason)
        return outputs
