"""Service: what the routes share. The served model once its engine is up, the stages, and the way in for requests."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from litestar.di import NamedDependency

from ..engine import AsyncEngine
from ..errors import NotReady, UnknownModel
from ..text import SamplingParams
from .directory import NOBODY, Directory
from .disconnect import UntilDisconnect
from .errors import ApiError
from .exchange import Exchange
from .generation import Generation, Prompt
from .metrics import Metrics
from .served import ServedModel
from .settings import ServerSettings
from .stages import Generate, Stages

if TYPE_CHECKING:
    from ..fleet.fleet import Fleet


class Service:
    """The served models. They may come later: until then every request for them is answered with 503."""

    def __init__(
        self, settings: ServerSettings, engine: AsyncEngine | None = None, stages: Stages | None = None
    ) -> None:
        self.settings = settings
        self.stages = stages or Stages()
        self.metrics = Metrics()
        self.draining = False
        self.created = int(time.time())
        self._counter = itertools.count()
        self.fleet: Fleet | None = None  # where models come and go
        self.directory: Directory = NOBODY
        if engine is not None:
            self.attach(engine)

    def attach(self, engine: AsyncEngine) -> None:
        """Serve this engine alone. Raises ParameterError for a chat template (a setting) that is no valid one."""
        model = ServedModel(engine, self.settings)
        self.metrics.attach(engine, model.family)
        self.show(Directory(dict.fromkeys(("", *model.names), model), (model,)))

    def show(self, directory: Directory) -> None:
        """Answer to these names from now on."""
        self.directory = directory

    @property
    def default(self) -> ServedModel:
        """The model that answers when none is named. Raises NotReady while there is none."""
        return self.find("")

    @property
    def default_name(self) -> str:
        """What stands for the model that answers when none is named. Raises NotReady."""
        return self.default.family if self.fleet is None else self.fleet.roster.default

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Every model that is served. Raises NotReady."""
        if not self.directory.models:
            raise NotReady("starting")
        return self.directory.models

    @property
    def state(self) -> str:
        """What a load balancer wants to know: "ready" takes requests, anything else does not."""
        if self.draining:
            return "draining"
        if self.fleet is not None:
            return self.fleet.roster.state
        return self.directory.models[0].engine.state if self.directory.models else "starting"

    def model_states(self) -> dict[str, str] | None:
        """Return {name@version: state}; None where models do not come and go."""
        return None if self.fleet is None else self.fleet.roster.states()

    def find(self, name: str) -> ServedModel:
        """Return the model of a name, the default one for no name at all. Raises NotReady and ApiError 404."""
        return self.directory.get(name) or self._search(name)

    def _search(self, name: str) -> ServedModel:
        """Find a model that is not called so at the moment, or say why there is none."""
        try:
            if self.fleet is not None:
                return self.fleet.roster.find(name)
            known = ", ".join(name for model in self.models for name in model.names)
            raise UnknownModel(f"the model {name!r} does not exist: this server serves {known}")
        except UnknownModel as error:
            raise ApiError(404, str(error), param="model", code="model_not_found") from error

    def choose(self, name: str, exchange: Exchange, data: object = None) -> ServedModel:
        """Return the model that is to answer a request for `name`. Raises NotReady and ApiError 403 and 404."""
        target = name
        if self.stages.traffic is not None:
            exchange.asked = name = name or self.default_name
            target = self.stages.traffic.redirect(exchange, name, data)
        self.check_use(name, exchange)
        model = self.directory.get(target) or self._search(target)
        return self.hold(exchange, model)

    def check_use(self, name: str, exchange: Exchange) -> None:
        """Accept a model that the exchange's key is good for. Raises NotReady and ApiError 403."""
        if self.stages.gate is not None:
            self.stages.gate.allow_model(exchange, name or self.default_name)

    def hold(self, exchange: Exchange, model: ServedModel) -> ServedModel:
        """Let a model answer an exchange: it stays until that has ended. Returns it."""
        exchange.model = model
        if model.leases is not None:
            model.leases.hold(exchange)
            exchange.headers["x-isotoken-model"] = model.name
        return model

    async def answer(
        self, exchange: Exchange, model: ServedModel, data: object, generate: Generate
    ) -> tuple[ServedModel, Generation]:
        """Have the chosen model answer, or another one in its stead. Return which did, with what it generates."""
        if self.stages.traffic is None:
            return model, await generate(model, _as_it_is)
        return await self.stages.traffic.answer(exchange, model, data, generate)

    async def submit(
        self,
        exchange: Exchange,
        model: ServedModel,
        prompts: list[Prompt],
        params: SamplingParams,
        *,
        request_id: str,
        priority: int = 0,
        deadline: float | None = None,
        cache_salt: str = "",
        whole: bool = False,
    ) -> Generation:
        """Hand prompts to the engine, all or none; `whole`: nothing is shown before its end.

        Raises what AsyncEngine.generate raises, NotReady, and what the stages have against it.
        """
        if self.draining:
            raise NotReady("draining")
        meter = None
        if self.stages.ledger is not None:
            num_tokens = sum(len(prompt.token_ids) for prompt in prompts)
            meter = await self.stages.ledger.open(exchange, model, num_tokens)
        if self.stages.gate is not None:
            with UntilDisconnect(exchange.scope, exchange.receive):
                params = await self.stages.gate.admit(exchange, [len(prompt.token_ids) for prompt in prompts], params)
            priority = max(0, priority)  # a tenant's own requests it may put behind others, not before
        filters, skip = self.stages.filters, params.skip_special_tokens
        output_filter = None if filters is None else filters.output(exchange, model.text, skip_special_tokens=skip)
        limit = self.settings.limits.request_timeout_s
        seconds = limit if deadline is None else deadline if limit is None else min(deadline, limit)
        salt = exchange.principal.cache_salt + cache_salt.encode()
        streams = []
        try:
            for prompt in prompts:
                stream = model.engine.generate(
                    prompt.token_ids,
                    params,
                    request_id=f"{request_id}-{next(self._counter)}",  # clients may send an id of their own twice
                    priority=priority + exchange.principal.priority,
                    deadline_s=seconds,
                    cache_salt=salt,
                    whole=whole and output_filter is None,  # a filter may end it early
                    meter=meter,
                    timed=exchange.trace is not None and exchange.trace.is_recorded,
                )
                streams.append(stream)
        except BaseException:
            Generation.abandon(streams)
            raise
        if self.stages.gate is not None:
            self.stages.gate.watch(exchange, streams)
        return Generation(exchange, prompts, params.n, streams, self.metrics, lambda: self.draining, output_filter)


def _as_it_is(params: SamplingParams) -> SamplingParams:
    return params


Served = NamedDependency[Service]
"""How a route asks for the service."""
