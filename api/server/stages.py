"""What a request passes on its way, each stage off (None) until it is configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..engine import GenerationDelta
    from .exchange import Exchange
    from .schemas import RequestModel


class Gate(Protocol):
    """Decides who comes in, and when."""

    async def enter(self, exchange: Exchange) -> None:
        """Say who asks (`exchange.principal`), before the body is read. Raises ApiError 401, 403 or 429."""
        ...

    def allow_model(self, exchange: Exchange, name: str) -> None:
        """Accept the model that is asked for. Raises ApiError 403."""
        ...

    async def admit(self, exchange: Exchange, num_prompt_tokens: int, max_output_tokens: int) -> None:
        """Wait for the request's turn. Token counts are of all prompts and choices. Raises ApiError 400 or 429.

        Whoever came in leaves through `exchange.on_end`.
        """
        ...


class OutputFilter(Protocol):
    """Looks at one generation's output before it leaves."""

    def feed(self, index: int, delta: GenerationDelta) -> GenerationDelta | None:
        """Return what may leave now of choice `index`; None: nothing. What was held back comes with a later delta."""
        ...


class Filters(Protocol):
    """Looks at what goes in and out."""

    async def prompt(self, exchange: Exchange, data: RequestModel) -> None:
        """Look at a request's text, and maybe change it in place. Raises ApiError for what may not go in."""
        ...

    def output(self, exchange: Exchange) -> OutputFilter | None:
        """Return a filter for one generation; None: it may pass as it is."""
        ...


class Ledger(Protocol):
    """Remembers what was used."""

    def open(self, exchange: Exchange) -> None:
        """Watch over an exchange that is about to use an engine. Raises ApiError for a budget that is spent."""
        ...


@dataclass(slots=True, kw_only=True)
class Stages:
    """All of them."""

    gate: Gate | None = None
    filters: Filters | None = None
    ledger: Ledger | None = None
