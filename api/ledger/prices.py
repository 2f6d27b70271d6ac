"""PriceTable: what a request costs, by the model that answered it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .money import per_token
from .settings import Price

log = logging.getLogger("isotoken.ledger")


@dataclass(frozen=True, slots=True)
class Rates:
    """What one token costs, in money.UNITs."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0

    def cost(self, prompt_tokens: int, cached_tokens: int, generated_tokens: int) -> int:
        """Return the price of a request; `cached_tokens` are among `prompt_tokens`."""
        computed = prompt_tokens - cached_tokens
        return computed * self.prompt + cached_tokens * self.cached + generated_tokens * self.generated


_FREE = Rates()


class PriceTable:
    """Rates by model. An entry keeps the cost that it was given: new prices change no past."""

    def __init__(self, prices: Sequence[Price]) -> None:
        self._prices = [(price.model, _rates(price)) for price in prices]
        self._found: dict[tuple[str, str], Rates] = {}

    def rates(self, model: str, version: str = "") -> Rates:
        """Return a model's rates; a model without a price is free, which is logged once."""
        found = self._found.get((model, version))
        if found is None:
            found = self._found[model, version] = self._find(model, version)
        return found

    def _find(self, model: str, version: str) -> Rates:
        names = (model, f"{model}@{version}")
        for pattern, rates in self._prices:
            if any(name == pattern or fnmatchcase(name, pattern) for name in names):
                return rates
        if self._prices:
            log.warning("the model %r has no price: what it does is counted, and costs nothing", model)
        return _FREE


def _rates(price: Price) -> Rates:
    cached = price.prompt if price.cached is None else price.cached
    return Rates(per_token(price.prompt), per_token(cached), per_token(price.generated))
