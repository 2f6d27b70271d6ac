"""RequestInFlight: one request between the engine and its reader: its choices' text, its deadline, its numbers."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...core.types import FinishReason, RequestOutput
from ..choice import Choice
from ..errors import EngineFailed
from .lumps import joined
from .recorder import Recorder
from .replay import Entry
from .stream import GenerationStream
from .types import GenerationDelta, RequestStats

Meter = Callable[[int], bool]
"""Is told of each lot of output tokens; True: the request may have no more. It ends as at its max_tokens then."""

METERED = "budget_exceeded"
"""The stop_reason of choices that a meter ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom a request tells what."""

    drop: Callable[[Entry], None]  # take this choice out of the engine
    choice_started: Callable[[int], None]  # a choice of so many prompt tokens got its first token, or ended without
    choice_ended: Callable[[Entry, float], None]  # so many seconds after it was submitted
    finished: Callable[[RequestStats], None]


@dataclass(slots=True)
class _Part:
    """One choice."""

    entry: Entry
    text: Choice
    started: bool = False
    reason: FinishReason | None = None
    held: RequestOutput | None = None  # what came so far of a choice that nobody wants to see before its end


class RequestInFlight:
    """Feed it what the engine brings to its choices; it feeds the stream."""

    def __init__(
        self,
        owner: Owner,
        recorder: Recorder,
        choices: Sequence[tuple[Entry, Choice]],
        *,
        whole: bool = False,
        meter: Meter | None = None,
    ) -> None:
        self._owner = owner
        self._recorder = recorder
        self._whole = whole
        self._meter = meter
        self._cut_by: str | None = None
        self._parts = [_Part(entry, text) for entry, text in choices]
        self._reader: Callable[[], GenerationStream | None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, request_id: str, timeout: float | None) -> GenerationStream:
        """Return the stream, to be called once. `timeout` in seconds ends the request whatever the engine does."""
        stream = GenerationStream(request_id, len(self._parts), self.abort)
        stream.recorder = self._recorder
        self._reader = weakref.ref(stream)  # only the reader holds it: one who drops it without closing is noticed
        if timeout is not None:
            self._timer = asyncio.get_running_loop().call_later(timeout, self._expire)
        return stream

    def on_scheduled(self, step_duration: float) -> None:
        """One of the choices was in a step for the first time."""
        self._recorder.scheduled(step_duration)

    def on_output(self, index: int, output: RequestOutput) -> None:
        """A step brought something to choice `index`."""
        part = self._parts[index]
        if part.reason is not None or (not output.token_ids and output.finish_reason is None):
            return  # ended here before the engine knew, or only a part of the prompt's logprobs
        num_tokens = len(output.token_ids)
        if output.num_drafted:
            self._recorder.drafted(output.num_drafted, output.num_accepted)
        if self._whole:
            if output.finish_reason is None:
                self._hold(part, index, output)
                return
            output = joined(part.held, output)
        delta = part.text.feed(output)
        num_tokens = min(num_tokens, len(delta.token_ids))
        self._recorder.tokens(index, num_tokens, output.num_cached_tokens)
        is_first = self._whole or not part.started
        scored = part.entry.prompt_logprobs if is_first and part.entry.prompt_logprobs else None
        self._start(part)
        stream = self._reader()
        if stream is not None:
            stream.push(
                GenerationDelta(
                    index=index,
                    text=delta.text,
                    token_ids=delta.token_ids,
                    logprobs=delta.logprobs,
                    finish_reason=None if delta.finish_reason is None else delta.finish_reason.value,
                    stop_reason=self._cut_by if delta.stop_reason is None else delta.stop_reason,
                    prompt_logprobs=scored,
                    num_cached_tokens=output.num_cached_tokens,
                )
            )
        if delta.finish_reason is not None:
            if output.finish_reason is None:  # a stop string: the engine knows nothing of text
                self._owner.drop(part.entry)
            self._end(part, delta.finish_reason)
        if self._meter is not None:
            self._spend(self._meter, num_tokens)

    def _hold(self, part: _Part, index: int, output: RequestOutput) -> None:
        """Keep what came until the end, which spares turning it into text piece by piece."""
        self._recorder.tokens(index, len(output.token_ids), output.num_cached_tokens)
        part.held = joined(part.held, output)
        self._start(part)
        if self._meter is not None:
            self._spend(self._meter, len(output.token_ids))

    def fail(self, error: str) -> None:
        """The engine failed on one of the choices: the request is over."""
        stream = self._reader()
        if stream is not None:
            stream.fail(EngineFailed(error))
        self._end_all(FinishReason.ERROR, error)

    def abort(self) -> None:
        """The reader left."""
        self._end_all(FinishReason.ABORT)

    def _expire(self) -> None:
        self._cut(FinishReason.TIMEOUT)

    def _spend(self, meter: Meter, num_tokens: int) -> None:
        if num_tokens and meter(num_tokens):
            self._cut_by = METERED
            self._cut(FinishReason.LENGTH)

    def _cut(self, reason: FinishReason) -> None:
        """End what has not ended, whatever the engine does."""
        for index, part in enumerate(self._parts):
            if part.reason is None:
                self._owner.drop(part.entry)
                self.on_output(index, RequestOutput(request_id="", token_ids=[], finish_reason=reason))

    def _start(self, part: _Part) -> None:
        if not part.started:
            part.started = True
            self._owner.choice_started(len(part.entry.submit.prompt_ids))

    def _end_all(self, reason: FinishReason, error: str | None = None) -> None:
        for part in self._parts:
            if part.reason is None:
                self._owner.drop(part.entry)
                self._start(part)
                self._end(part, reason, error)

    def _end(self, part: _Part, reason: FinishReason, error: str | None = None) -> None:
        part.reason = reason
        self._owner.choice_ended(part.entry, self._recorder.age)
        reasons = [str(part.reason) for part in self._parts if part.reason is not None]
        if len(reasons) < len(self._parts):
            return
        if self._timer is not None:
            self._timer.cancel()
        stats = self._recorder.finish(reasons, error)
        stream = self._reader()
        if stream is not None:
            stream.stats = stats
        self._owner.finished(stats)
