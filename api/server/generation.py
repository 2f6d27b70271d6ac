"""Generation: the work behind one HTTP request, which is every prompt's n choices, numbered prompt by prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ...core.types import TokenLogprobs
from ..engine import GenerationDelta, GenerationStream
from ..errors import EngineFailed, NotReady
from ..tools.offer import Offer
from .errors import ApiError
from .exchange import Exchange
from .metrics import Metrics
from .stages import OutputFilter

# Deltas of several prompts that may wait here for a slow reader. The others wait in their streams, merged.
_MERGE_QUEUE = 64


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as token ids, and as text where the client gave text."""

    token_ids: list[int]
    text: str | None = None


@dataclass(slots=True)
class Choice:
    """A whole choice, put together from its deltas."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    offsets: list[int] = field(default_factory=list)  # as GenerationDelta has them


class Generation:
    """Deltas of all choices as they come. Closing it aborts what is still running."""

    def __init__(
        self,
        exchange: Exchange,
        prompts: list[Prompt],
        n: int,
        streams: list[GenerationStream],
        metrics: Metrics,
        is_draining: Callable[[], bool],
        output_filter: OutputFilter | None = None,
    ) -> None:
        self._exchange = exchange
        exchange.recorders = [stream.recorder for stream in streams if stream.recorder is not None]
        self.prompts = prompts
        self.n = n
        self.streams = streams
        self._metrics = metrics
        self._is_draining = is_draining
        self._filter = output_filter
        self.taps: list[Callable[[int, GenerationDelta], None]] = []  # see each delta before any filter does
        self.offer: Offer | None = None  # of tools, whose calls the text may hold
        self._settled: list[Choice] | None = None
        self._num_cached = [0] * len(streams)
        self._num_output = 0

    def prompt_of(self, index: int) -> Prompt:
        """Return the prompt that a choice continues."""
        return self.prompts[index // self.n]

    @property
    def num_choices(self) -> int:
        """Prompts times n."""
        return len(self.prompts) * self.n

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts, each counted once."""
        return sum(len(prompt.token_ids) for prompt in self.prompts)

    @property
    def num_output_tokens(self) -> int:
        """Of all choices, so far."""
        return self._num_output

    def usage(self) -> dict[str, Any]:
        """Return OpenAI's usage object for what has been done so far."""
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": self._num_output,
            "total_tokens": self.num_prompt_tokens + self._num_output,
            "prompt_tokens_details": {"cached_tokens": sum(self._num_cached), "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    async def deltas(self) -> AsyncGenerator[tuple[int, GenerationDelta]]:
        """Yield (choice number, delta). Raises EngineFailed, NotReady when the server ends, and 408 for a deadline."""
        if self._settled is not None:
            for choice in self._settled:
                yield choice.index, _as_delta(choice)
            return
        source = _single(self.streams[0]) if len(self.streams) == 1 else _merge(self.streams)
        num_open = self.num_choices
        try:
            async with aclosing(source) as items:
                async for position, delta in items:
                    self._count(position, delta)
                    index = position * self.n + delta.index
                    released = delta if self._filter is None else self._filter.feed(index, delta)
                    if released is not None:
                        yield index, released
                        num_open -= released.finish_reason is not None
                    if not num_open:
                        break  # a filter may end a choice before its stream does
        except EngineFailed as error:
            self._raise_if_draining(error)
            raise

    def _count(self, position: int, delta: GenerationDelta) -> None:
        for tap in self.taps:
            tap(position * self.n + delta.index, delta)
        self._num_output += len(delta.token_ids)
        # The other choices find what the first has just left in the cache.
        if delta.index == 0 and delta.num_cached_tokens > self._num_cached[position]:
            self._num_cached[position] = delta.num_cached_tokens
        if delta.finish_reason == "timeout":
            raise ApiError(408, "the request's deadline passed before the answer was complete")

    def _raise_if_draining(self, error: EngineFailed) -> None:
        if self._is_draining():
            raise NotReady("draining", "the server shuts down and this answer was cut short") from error

    def text_only(self) -> None:
        """Say, before anything is read, that nobody is shown token ids or log-probabilities."""
        if self._filter is not None:
            self._filter.with_tokens = False

    def lead(self, index: int, text: str) -> str:
        """Say, before anything is read, what an answer puts before a choice's own text. Return what is left to put.

        Where there are filters, they look at both together, and the lead comes with the choice's text.
        """
        if self._filter is None or not text:
            return text
        self._filter.lead(index, text)
        return ""

    def is_lead_changed(self, index: int) -> bool:
        """Whether filters changed the lead, so that its tokens are not to be shown."""
        return self._filter is not None and self._filter.is_lead_changed(index)

    def joined(self, lead: str, text: str) -> str:
        """Return a lead with a choice's whole text, as filters let it pass."""
        return lead + text if self._filter is None or not lead else self._filter.whole(lead + text)

    async def collect(self) -> list[Choice]:
        """Wait for everything and return the whole choices in order. Raises as `deltas`."""
        if self._settled is not None:
            return self._settled
        is_simple = len(self.streams) == 1 and self._filter is None
        return await (self._collect_one() if is_simple else self._collect_all())

    async def settle(self) -> list[Choice]:
        """Wait for everything, and show it to whoever reads later: who looks first may still go to another model."""
        self._settled = await self.collect()
        return self._settled

    async def _collect_one(self) -> list[Choice]:
        """One prompt needs nobody to look at its choices before the last of them is whole."""
        try:
            deltas = sorted(await self.streams[0].whole(), key=lambda delta: delta.index)
        except EngineFailed as error:
            self._raise_if_draining(error)
            raise
        for delta in deltas:
            self._count(0, delta)
        return [
            Choice(
                delta.index,
                delta.text,
                delta.token_ids,
                delta.logprobs or [],
                deltas[0].prompt_logprobs,
                delta.finish_reason,
                delta.stop_reason,
            )
            for delta in deltas
        ]

    async def _collect_all(self) -> list[Choice]:
        choices = [Choice(index) for index in range(self.num_choices)]
        texts: list[list[str]] = [[] for _ in choices]
        async with aclosing(self.deltas()) as deltas:
            async for index, delta in deltas:
                choice = choices[index]
                texts[index].append(delta.text)
                choice.token_ids += delta.token_ids
                choice.logprobs += delta.logprobs or ()
                choice.offsets += delta.offsets or ()
                choice.prompt_logprobs = delta.prompt_logprobs or choice.prompt_logprobs
                choice.finish_reason, choice.stop_reason = delta.finish_reason, delta.stop_reason
        for choice, parts in zip(choices, texts, strict=True):
            choice.text = "".join(parts)
            choice.prompt_logprobs = choices[choice.index // self.n * self.n].prompt_logprobs
        return choices

    async def aclose(self) -> None:
        """Abort what has not ended and count what has been done. Harmless when repeated."""
        for stream in self.streams:
            await stream.aclose()
        for stream in self.streams:
            if stream.stats is not None:
                self._metrics.finished(stream.stats, self._exchange)
                self._exchange.stats.append(stream.stats)
        self.streams = []

    @staticmethod
    def abandon(streams: Iterable[GenerationStream]) -> None:
        """Abort streams of which nothing was read yet, from code that cannot wait."""
        for stream in streams:
            task = asyncio.ensure_future(stream.aclose())
            task.add_done_callback(asyncio.Future.exception)  # nobody else looks at it


def _as_delta(choice: Choice) -> GenerationDelta:
    """Return a whole choice as the only delta of its stream."""
    return GenerationDelta(
        index=choice.index,
        text=choice.text,
        token_ids=choice.token_ids,
        logprobs=choice.logprobs,
        finish_reason=choice.finish_reason,
        stop_reason=choice.stop_reason,
        prompt_logprobs=choice.prompt_logprobs,
        offsets=choice.offsets or None,
    )


async def _single(stream: GenerationStream) -> AsyncGenerator[tuple[int, GenerationDelta]]:
    async for delta in stream:
        yield 0, delta


async def _merge(streams: list[GenerationStream]) -> AsyncGenerator[tuple[int, GenerationDelta]]:
    """Yield what several streams bring, as it comes. The first that fails ends them all."""
    queue: asyncio.Queue[tuple[int, GenerationDelta | Exception | None]] = asyncio.Queue(_MERGE_QUEUE)

    async def pump(position: int, stream: GenerationStream) -> None:
        try:
            async for delta in stream:
                await queue.put((position, delta))
            await queue.put((position, None))
        except Exception as error:  # raised again by the reader
            await queue.put((position, error))

    tasks = [asyncio.create_task(pump(position, stream)) for position, stream in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            position, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield position, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
