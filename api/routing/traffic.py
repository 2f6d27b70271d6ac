"""TrafficControl: the stage that says which model answers a request, and what else becomes of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..server.disconnect import UntilDisconnect
from ..text import SamplingParams
from .escalation import confidence
from .experiments import Cost, Experiments
from .features import measure
from .router import Router
from .settings import Escalation, Route, RoutingSettings
from .shadow import Shadows

if TYPE_CHECKING:
    from ..server.exchange import Exchange
    from ..server.generation import Generation
    from ..server.served import ServedModel
    from ..server.service import Service
    from ..server.stages import Generate

ROUTE_HEADER = "x-isotoken-route"


class TrafficControl:
    """Experiments, routes, escalations and shadows of one server."""

    def __init__(
        self, settings: RoutingSettings, service: Service, routers: Mapping[str, Router], cost: Cost = lambda _: None
    ) -> None:
        """`routers` has one for the name of each route's model."""
        self._service = service
        self._routes: dict[str, Route] = {route.model: route for route in settings.routes}
        self._routers = routers
        self._escalations: dict[str, Escalation] = {each.model: each for each in settings.escalations}
        self.experiments = Experiments(settings.experiments, cost)
        self.shadows = Shadows(settings.shadows, service)

    def redirect(self, exchange: Exchange, asked: str, data: Any) -> str:
        """Return the model that is to answer a request for the name `asked`: another one, or the same name."""
        arm = self.experiments.choose(asked, exchange, getattr(data, "user", "") or "")
        if arm is not None:
            return arm
        route = self._routes.get(asked)
        if route is not None:
            decision = self._routers[asked].choose(measure(texts_of(data)), route.candidates)
            exchange.headers[ROUTE_HEADER] = decision.why
            return decision.model
        escalation = self._escalations.get(asked)
        return asked if escalation is None else escalation.cheap

    async def answer(
        self, exchange: Exchange, model: ServedModel, data: Any, generate: Generate
    ) -> tuple[ServedModel, Generation]:
        """See the stage."""
        escalation = self._escalations.get(exchange.asked)
        if escalation is not None:
            return await self._escalate(escalation, exchange, model, data, generate)
        outcomes = self.shadows.pick(exchange.asked, exchange)
        if not outcomes:
            return model, await generate(model, lambda params: params)
        seen: list[SamplingParams] = []

        def note(params: SamplingParams) -> SamplingParams:
            seen.append(params if params.seed is not None else replace(params, seed=secrets.randbits(63)))
            return seen[-1]

        generation = await generate(model, note)
        self.shadows.watch(outcomes, exchange, model, generation, seen[-1])
        return model, generation

    async def close(self) -> None:
        """Give up what is under way."""
        await self.shadows.close()

    async def _escalate(
        self, escalation: Escalation, exchange: Exchange, cheap: ServedModel, data: Any, generate: Generate
    ) -> tuple[ServedModel, Generation]:
        """Ask the cheap model first. An answer that is echoed, or several, go to the strong one at once."""
        if getattr(data, "n", 1) > 1 or getattr(data, "echo", False):
            exchange.headers[ROUTE_HEADER] = "escalated"
        else:
            attempt = await generate(cheap, _scored)
            with UntilDisconnect(exchange.scope, exchange.receive):
                sure = await _confidence(attempt)
            exchange.headers[ROUTE_HEADER] = f"confidence={sure:.3f}"
            if sure >= escalation.min_confidence:
                return cheap, attempt
            await attempt.aclose()
            exchange.headers[ROUTE_HEADER] += ", escalated"
        strong = self._service.hold(exchange, self._service.find(escalation.strong))
        return strong, await generate(strong, lambda params: params)


async def _confidence(attempt: Generation) -> float:
    """Wait for the whole answer, and say how sure its model was; 1 for one that a filter has ended."""
    try:
        choices = await attempt.settle()
    except BaseException:
        await attempt.aclose()
        raise
    if any(choice.finish_reason == "content_filter" for choice in choices):
        return 1.0
    try:
        return confidence(choices)
    except ValueError:  # nothing was drawn, or nothing of it may be shown
        return 0.0


def _scored(params: SamplingParams) -> SamplingParams:
    return params if params.logprobs is not None else replace(params, logprobs=0)


def texts_of(data: Any) -> list[str]:
    """Return the texts of a request's body, as far as it has any: prompts, or a conversation's messages."""
    if hasattr(data, "messages") and data.messages:
        return [message.text for message in data.messages]
    prompts = getattr(data, "prompts", None) or [getattr(data, "inputs", "") or getattr(data, "prompt", "")]
    return [prompt for prompt in prompts if isinstance(prompt, str)]
