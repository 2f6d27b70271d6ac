"""Service: what the routes share. The served model once its engine is up, the stages, and the way in for requests."""

from __future__ import annotations

import itertools
import time

from litestar.di import NamedDependency

from ..engine import AsyncEngine
from ..errors import NotReady
from ..text import SamplingParams
from .disconnect import UntilDisconnect
from .errors import ApiError
from .exchange import Exchange
from .generation import Generation, Prompt
from .metrics import Metrics
from .served import ServedModel
from .settings import ServerSettings
from .stages import Stages


class Service:
    """One served model. The engine may come later: until then every request for it is answered with 503."""

    def __init__(
        self, settings: ServerSettings, engine: AsyncEngine | None = None, stages: Stages | None = None
    ) -> None:
        self.settings = settings
        self.stages = stages or Stages()
        self.metrics = Metrics()
        self.draining = False
        self.created = int(time.time())
        self._counter = itertools.count()
        self._model: ServedModel | None = None
        if engine is not None:
            self.attach(engine)

    def attach(self, engine: AsyncEngine) -> None:
        """Serve this engine from now on. Raises ParameterError for a chat template (a setting) that is no valid one."""
        self._model = ServedModel(engine, self.settings)
        self.metrics.attach(engine)

    @property
    def default(self) -> ServedModel:
        """The model that answers when none is named. Raises NotReady while there is none."""
        if self._model is None:
            raise NotReady("starting")
        return self._model

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Every model that is served. Raises NotReady."""
        return (self.default,)

    @property
    def state(self) -> str:
        """What a load balancer wants to know: "ready" takes requests, anything else does not."""
        if self.draining:
            return "draining"
        return "starting" if self._model is None else self._model.engine.state

    def find(self, name: str) -> ServedModel:
        """Return the model of a name, the default one for no name at all. Raises NotReady and ApiError 404."""
        model = self.default
        if name in ("", *model.names):
            return model
        known = ", ".join(name for model in self.models for name in model.names)
        message = f"the model {name!r} does not exist: this server serves {known}"
        raise ApiError(404, message, param="model", code="model_not_found")

    def choose(self, name: str, exchange: Exchange) -> ServedModel:
        """Return the model that is to answer a request for `name`. Raises NotReady and ApiError 403 and 404."""
        exchange.model = model = self.find(name)
        if self.stages.gate is not None:
            self.stages.gate.allow_model(exchange, name or model.name)
        return model

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
        if self.stages.ledger is not None:
            self.stages.ledger.open(exchange)
        if self.stages.gate is not None:
            num_tokens = sum(len(prompt.token_ids) for prompt in prompts)
            with UntilDisconnect(exchange.scope, exchange.receive):
                await self.stages.gate.admit(exchange, num_tokens, len(prompts) * params.n * (params.max_tokens or 0))
        limit = self.settings.limits.request_timeout_s
        seconds = min((value for value in (deadline, limit) if value is not None), default=None)
        streams = []
        try:
            for prompt in prompts:
                stream = model.engine.generate(
                    prompt.token_ids,
                    params,
                    request_id=f"{request_id}-{next(self._counter)}",  # clients may send an id of their own twice
                    priority=priority + exchange.principal.priority,
                    deadline_s=seconds,
                    cache_salt=exchange.principal.cache_salt + cache_salt.encode(),
                    whole=whole,
                )
                streams.append(stream)
        except BaseException:
            Generation.abandon(streams)
            raise
        filters = self.stages.filters
        output_filter = None if filters is None else filters.output(exchange)
        return Generation(exchange, prompts, params.n, streams, self.metrics, lambda: self.draining, output_filter)


Served = NamedDependency[Service]
"""How a route asks for the service."""
