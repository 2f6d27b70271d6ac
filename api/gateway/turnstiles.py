"""Turnstiles: one for each model's engine."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..errors import Overloaded
from .stay import Stay
from .turnstile import QueueBounds, Turnstile

if TYPE_CHECKING:
    from ..engine import AsyncEngine
    from ..server.served import ServedModel


class Turnstiles:
    """Made as models are first asked for; they go with their engines."""

    def __init__(self, bounds: QueueBounds, max_running: int = 0) -> None:
        """`max_running`: choices at an engine at once; 0: as many as it computes at once."""
        self._bounds = bounds
        self._max_running = max_running
        self._of: WeakKeyDictionary[AsyncEngine, Turnstile] = WeakKeyDictionary()
        self._names: WeakKeyDictionary[AsyncEngine, str] = WeakKeyDictionary()

    def of(self, model: ServedModel) -> Turnstile:
        """Return a model's."""
        engine = model.engine
        turnstile = self._of.get(engine)
        if turnstile is None:
            size = self._max_running or engine.info.max_num_seqs
            turnstile = self._of[engine] = Turnstile(lambda: size, self._bounds)
            self._names[engine] = model.name
        return turnstile

    def all(self) -> list[Turnstile]:
        """Return those of every engine that was asked for something."""
        return list(self._of.values())

    def named(self) -> list[tuple[str, Turnstile]]:
        """Return them with their models' names; of those that share one, as while one is swapped, the latest."""
        return list({self._names[engine]: turnstile for engine, turnstile in self._of.items()}.items())

    def arrive(self, stay: Stay) -> None:
        """Refuse a request that would wait for too long whichever model it asks for. Raises Overloaded."""
        principal, found = stay.principal, self.all()
        if len(found) == 1:
            (only,) = found
            only.check(principal.tenant, principal.weight, principal.priority)
            stay.coming_to = only
            only.expect(principal.tenant)
            return
        refusal: Overloaded | None = None
        for turnstile in found:
            try:
                turnstile.check(principal.tenant, principal.weight, principal.priority)
            except Overloaded as error:
                refusal = error
            else:
                return
        if refusal is not None:
            raise refusal

    async def enter(self, stay: Stay, model: ServedModel, cost: float, num_choices: int) -> None:
        """Wait for a request's turn at its model. Raises Overloaded."""
        _no_longer_coming(stay)
        principal = stay.principal
        turnstile = self.of(model)
        stay.turn = await turnstile.enter(
            principal.tenant, cost, weight=principal.weight, priority=principal.priority, num_choices=num_choices
        )
        stay.turnstile, stay.inside = turnstile, True

    def vacate(self, stay: Stay) -> None:
        """The engine is done with a request: the next may come. Harmless when repeated."""
        if stay.turn is not None and stay.turnstile is not None and stay.inside:
            stay.inside = False
            stay.turnstile.leave(stay.turn)

    def leave(self, stay: Stay, used: float) -> None:
        """A request is over. Harmless when repeated."""
        _no_longer_coming(stay)
        self.vacate(stay)
        if stay.turn is not None and stay.turnstile is not None:
            stay.turnstile.settle(stay.turn, used)
            stay.turn = None


def _no_longer_coming(stay: Stay) -> None:
    if stay.coming_to is not None:
        stay.coming_to.expect_no_longer(stay.principal.tenant)
        stay.coming_to = None
