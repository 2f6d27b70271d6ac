"""What a request passes on its way, each stage off (None) until it is configured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..engine import GenerationDelta, GenerationStream
    from ..engine.in_flight import Meter
    from ..safety.filters import Classifier
    from ..text import SamplingParams, TextModel
    from .exchange import Exchange
    from .generation import Generation
    from .schemas import RequestModel
    from .served import ServedModel


class Gate(Protocol):
    """Decides who comes in, and when."""

    async def enter(self, exchange: Exchange) -> None:
        """Say who asks (`exchange.principal`), before the body is read. Raises ApiError 401, 403 or 429."""
        ...

    def allow_model(self, exchange: Exchange, name: str) -> None:
        """Accept the model that is asked for. Raises ApiError 403."""
        ...

    async def admit(self, exchange: Exchange, prompt_lens: Sequence[int], params: SamplingParams) -> SamplingParams:
        """Wait for the request's turn, and return its parameters, kept within what its key allows.

        Whoever came in leaves through `exchange.on_end`. Raises ApiError 400 and 429, ParameterError and Overloaded.
        """
        ...

    def watch(self, exchange: Exchange, streams: Sequence[GenerationStream]) -> None:
        """See when the engine has done what was admitted: the next may have the place, however slow the reader is."""
        ...


class OutputFilter(Protocol):
    """Looks at one generation's output before it leaves."""

    with_tokens: bool  # whether anybody is shown token ids or log-probabilities

    def lead(self, index: int, text: str) -> None:
        """Put a text before a choice's own, such as an echoed prompt, before anything is fed."""
        ...

    def is_lead_changed(self, index: int) -> bool:
        """Whether that text, taken alone, is not released as it is."""
        ...

    def feed(self, index: int, delta: GenerationDelta) -> GenerationDelta | None:
        """Return what may leave now of choice `index`; None: nothing. What was held back comes with a later delta."""
        ...

    def whole(self, text: str) -> str:
        """Return what may leave of a text that is all there."""
        ...


class Filters(Protocol):
    """Looks at what goes in and out."""

    async def prompt(self, exchange: Exchange, data: RequestModel) -> None:
        """Look at a request's text, and maybe change it in place. Raises ApiError for what may not go in."""
        ...

    @property
    def classifier(self) -> Classifier | None:
        """What judges texts for /v1/moderations; None: nothing does."""
        ...

    def output(self, exchange: Exchange, text: TextModel, *, skip_special_tokens: bool) -> OutputFilter | None:
        """Return a filter for one generation; None: it may pass as it is."""
        ...


class Ledger(Protocol):
    """Remembers what was used."""

    async def open(self, exchange: Exchange, model: ServedModel, num_prompt_tokens: int) -> Meter | None:
        """Watch over an exchange that is about to use a model; the meter may end it early.

        Raises ApiError for a budget that is spent. It may be called for several models, one after the other.
        """
        ...

    def cost(self, exchange: Exchange) -> float:
        """Return what an exchange has cost so far, by the price table."""
        ...

    @property
    def problem(self) -> str:
        """What is wrong with it, for people; empty: nothing."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether requests are refused, since nothing more can be written down."""
        ...


Tweak = Callable[["SamplingParams"], "SamplingParams"]
Generate = Callable[["ServedModel", Tweak], Awaitable["Generation"]]
"""Submits a request to a model, with its parameters changed by the tweak."""


class Traffic(Protocol):
    """Decides which model answers, and what else is to be done with a request."""

    def redirect(self, exchange: Exchange, asked: str, data: object) -> str:
        """Return the name of the model that is to answer a request for the name `asked`: maybe the same."""
        ...

    async def answer(
        self, exchange: Exchange, model: ServedModel, data: object, generate: Generate
    ) -> tuple[ServedModel, Generation]:
        """Have `model` or another one answer a request for `exchange.asked`. Raises as Service.submit."""
        ...


class Telemetry(Protocol):
    """Tells an operator of each exchange. Raises nothing."""

    def begin(self, exchange: Exchange) -> None:
        """A request has arrived."""
        ...

    def head(self, exchange: Exchange) -> None:
        """An answer's head is about to leave."""
        ...

    def end(self, exchange: Exchange) -> None:
        """The answer is out, or the client has left."""
        ...

    def headers(self, exchange: Exchange) -> Mapping[str, str]:
        """Return what carries the exchange's trace on to a server that is asked on its behalf."""
        ...


@dataclass(slots=True, kw_only=True)
class Stages:
    """All of them."""

    gate: Gate | None = None
    filters: Filters | None = None
    ledger: Ledger | None = None
    traffic: Traffic | None = None
    telemetry: Telemetry | None = None
