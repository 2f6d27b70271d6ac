"""Shadows: a part of the traffic is also put to another model, and where its answers part is written down."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import NotReady, Overloaded
from ..server.errors import ApiError
from ..text import SamplingParams
from .assignment import share
from .settings import Shadow

if TYPE_CHECKING:
    from ..engine import GenerationDelta
    from ..server.exchange import Exchange
    from ..server.generation import Generation, Prompt
    from ..server.served import ServedModel
    from ..server.service import Service

log = logging.getLogger("isotoken.routing")

NUM_TOP = 5  # of the shadow's most likely tokens that a margin is looked for in
_KEPT = 100  # divergences that the report lists
_PRIORITY = 1 << 20  # behind everybody's requests
_WHOLE = frozenset({"stop", "length"})


@dataclass(frozen=True, slots=True)
class Token:
    """A token at the place where two answers part."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first token at which a shadow's answer differs."""

    request_id: str
    choice: int
    position: int  # in the answer, from 0
    served: Token | None  # None: the answer had ended
    shadow: Token | None
    margin: float | None  # nats by which the shadow prefers its own token; None: an answer ended, or
    is_more: bool  # the served token is not among its likeliest: then the margin is at least so much


@dataclass(slots=True)
class Outcome:
    """What came of one shadow since the server started."""

    shadow: Shadow
    answers: Counter[str] = field(default_factory=Counter)  # "equal" and "differs"; requests: "skipped", "failed"
    num_tokens: int = 0  # compared: up to the first difference
    reasons: Counter[str] = field(default_factory=Counter)  # why requests were skipped or failed
    divergences: deque[Divergence] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def told(self) -> dict[str, Any]:
        """Return it as JSON. No prompt and no answer is in it, but for single tokens."""
        return {
            "model": self.shadow.model,
            "target": self.shadow.target,
            "fraction": self.shadow.fraction,
            **{name: self.answers[name] for name in ("equal", "differs", "skipped", "failed")},
            "tokens_compared": self.num_tokens,
            "reasons": dict(self.reasons),
            "divergences": [asdict(each) for each in self.divergences],
        }


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request that was answered, as far as it is compared."""

    request_id: str
    model: ServedModel
    prompts: Sequence[Prompt]
    params: SamplingParams
    cache_salt: bytes
    tokens: Sequence[list[int]]  # of each choice, numbered prompt by prompt


class Shadows:
    """All that are under way. Clients wait for none of it, and nobody is charged for it."""

    def __init__(self, shadows: Sequence[Shadow], service: Service) -> None:
        self.outcomes = [Outcome(shadow) for shadow in shadows]
        self._service = service
        self._tasks: dict[asyncio.Task[None], Outcome] = {}
        self._same_tokens: dict[tuple[str, str], bool] = {}

    def pick(self, name: str, exchange: Exchange) -> list[Outcome]:
        """Return the shadows that a request for `name` is to have."""
        return [
            outcome
            for outcome in self.outcomes
            if outcome.shadow.model == name and share(outcome.shadow.target, exchange.id) < outcome.shadow.fraction
        ]

    def watch(
        self,
        outcomes: Sequence[Outcome],
        exchange: Exchange,
        model: ServedModel,
        generation: Generation,
        params: SamplingParams,
    ) -> None:
        """Note what is answered, and compare once it has been. `params` has the seed that was drawn with."""
        tokens: list[list[int]] = [[] for _ in range(generation.num_choices)]
        reasons: dict[int, str | None] = {}

        def tap(index: int, delta: GenerationDelta) -> None:
            tokens[index] += delta.token_ids
            reasons[index] = delta.finish_reason

        answered = _Answered(exchange.id, model, generation.prompts, params, exchange.principal.cache_salt, tokens)
        generation.taps.append(tap)
        exchange.on_end.append(lambda _: self._begin(outcomes, answered, set(reasons.values())))

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def idle(self) -> None:
        """Wait for all comparisons that are under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _begin(self, outcomes: Sequence[Outcome], answered: _Answered, reasons: set[str | None]) -> None:
        for outcome in outcomes:
            busy = sum(each is outcome for each in self._tasks.values()) >= outcome.shadow.max_in_flight
            if not reasons or not reasons <= _WHOLE:
                _leave_out(outcome, "skipped", "the answer was not complete")
            elif busy:
                _leave_out(outcome, "skipped", "too many comparisons at once")
            else:
                task = asyncio.create_task(self._compare(outcome, answered))
                self._tasks[task] = outcome
                task.add_done_callback(self._tasks.pop)

    async def _compare(self, outcome: Outcome, answered: _Answered) -> None:
        try:
            target = self._service.find(outcome.shadow.target)
            if not self._draws_same_tokens(answered.model, target):
                _leave_out(outcome, "skipped", "the models have different tokenizers")
                return
            with_lease = target.leases
            if with_lease is not None:
                with_lease.take()
            try:
                await self._answer(outcome, answered, target)
            finally:
                if with_lease is not None:
                    with_lease.release()
        except (Overloaded, NotReady):
            _leave_out(outcome, "skipped", "the shadow takes no requests now")
        except Exception as error:
            _leave_out(outcome, "failed", str(error) if isinstance(error, ApiError) else type(error).__name__)
            log.warning("the shadow %s of %s failed: %s", outcome.shadow.target, outcome.shadow.model, error)

    async def _answer(self, outcome: Outcome, answered: _Answered, target: ServedModel) -> None:
        """Have the shadow answer what was asked, prompt by prompt, and compare."""
        params = replace(answered.params, logprobs=max(NUM_TOP, answered.params.logprobs or 0))
        for number, prompt in enumerate(answered.prompts):
            stream = target.engine.generate(
                prompt.token_ids,
                params,
                request_id=f"shadow-{answered.request_id}-{number}",
                priority=_PRIORITY,
                cache_salt=answered.cache_salt,
                whole=True,
            )
            async with stream:
                for delta in await stream.whole():
                    index = number * params.n + delta.index
                    _judge(outcome, answered, target, index, delta)

    def _draws_same_tokens(self, one: ServedModel, other: ServedModel) -> bool:
        key = one.name, other.name
        if key not in self._same_tokens:
            self._same_tokens[key] = one.text.tokenizer.get_vocab() == other.text.tokenizer.get_vocab()
        return self._same_tokens[key]


def _leave_out(outcome: Outcome, what: str, why: str) -> None:
    outcome.answers[what] += 1
    outcome.reasons[why] += 1


def _judge(outcome: Outcome, answered: _Answered, target: ServedModel, index: int, delta: GenerationDelta) -> None:
    served, drawn = answered.tokens[index], delta.token_ids
    if delta.finish_reason not in _WHOLE:
        _leave_out(outcome, "failed", f"the shadow's answer ended with {delta.finish_reason}")
        return
    same = next((i for i, pair in enumerate(zip(served, drawn, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        same = min(len(served), len(drawn))
    outcome.num_tokens += same
    if same == len(served) == len(drawn):
        outcome.answers["equal"] += 1
        return
    outcome.answers["differs"] += 1
    own, theirs = (ids[same] if same < len(ids) else None for ids in (served, drawn))
    margin, is_more = _margin(delta, same, own)
    name = target.text.token_text
    tokens = [None if each is None else Token(each, name(each)) for each in (own, theirs)]
    outcome.divergences.append(Divergence(answered.request_id, index, same, tokens[0], tokens[1], margin, is_more))


def _margin(delta: GenerationDelta, position: int, served: int | None) -> tuple[float | None, bool]:
    """Return how much likelier the shadow's own token is to it than the served one, and whether it may be more."""
    if served is None or delta.logprobs is None or position >= len(delta.logprobs):
        return None, False
    own = delta.logprobs[position]
    for token, logprob in own.top:
        if token == served:
            return own.logprob - logprob, False
    return own.logprob - min((logprob for _, logprob in own.top), default=own.logprob), True
