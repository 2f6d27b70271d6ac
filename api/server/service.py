"""Service: what the routes share. The engine once it is up, what the model is called, and the way in for requests."""

from __future__ import annotations

import hashlib
import itertools
import time
from pathlib import Path
from typing import Any

from litestar.di import NamedDependency

from ... import __version__
from ..engine import AsyncEngine
from ..errors import NotReady
from ..text import SamplingParams
from .errors import ApiError
from .generation import Generation, Prompt
from .metrics import Metrics
from .prompts import Prompter
from .settings import ServerSettings


class Service:
    """One served model. The engine may come later: until then every request for it is answered with 503."""

    def __init__(self, settings: ServerSettings, engine: AsyncEngine | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.draining = False
        self.created = int(time.time())
        self._counter = itertools.count()
        self._engine: AsyncEngine | None = None
        if engine is not None:
            self.attach(engine)

    def attach(self, engine: AsyncEngine) -> None:
        """Serve this engine from now on. Raises ParameterError for a chat template (a setting) that is no valid one."""
        if self.settings.chat_template:
            engine.text.use_chat_template(self.settings.chat_template)
        self._engine = engine
        self.metrics.attach(engine)
        self.fingerprint = _fingerprint(engine)
        self._names = self.settings.served_model_names or (default_name(Path(engine.info.model)),)
        self.prompter = Prompter(engine.text, engine.info.max_model_len, self.settings)
        model_defaults = self.settings.generation_config == "model"
        self.default_params: dict[str, Any] = engine.text.default_params() if model_defaults else {}

    @property
    def engine(self) -> AsyncEngine:
        """The engine. Raises NotReady while there is none."""
        if self._engine is None:
            raise NotReady("starting")
        return self._engine

    @property
    def state(self) -> str:
        """What a load balancer wants to know: "ready" takes requests, anything else does not."""
        if self.draining:
            return "draining"
        return "starting" if self._engine is None else self._engine.state

    @property
    def names(self) -> tuple[str, ...]:
        """What the model may be called. The first is its id, which answers carry. Raises NotReady."""
        if self._engine is None:  # no name is served before there is one
            raise NotReady("starting")
        return self._names

    def check_model(self, name: str) -> None:
        """Accept the model's names and no name at all. Raises NotReady."""
        if name not in ("", *self.names):
            known = ", ".join(self.names)
            message = f"the model {name!r} does not exist: this server serves {known}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def submit(
        self,
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

        Raises what AsyncEngine.generate raises, and NotReady.
        """
        if self.draining:
            raise NotReady("draining")
        limit = self.settings.limits.request_timeout_s
        seconds = min((value for value in (deadline, limit) if value is not None), default=None)
        streams = []
        try:
            for prompt in prompts:
                stream = self.engine.generate(
                    prompt.token_ids,
                    params,
                    request_id=f"{request_id}-{next(self._counter)}",  # clients may send an id of their own twice
                    priority=priority,
                    deadline_s=seconds,
                    cache_salt=cache_salt.encode(),
                    whole=whole,
                )
                streams.append(stream)
        except BaseException:
            Generation.abandon(streams)
            raise
        return Generation(prompts, params.n, streams, self.metrics, lambda: self.draining)


def default_name(folder: Path) -> str:
    """Return what a model is called by default: the hub's id for a folder of its cache, else the folder's name."""
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name


def _fingerprint(engine: AsyncEngine) -> str:
    """Name what decides the numbers: the model, the version, the backend and its arithmetic."""
    info = engine.info
    facts = (__version__, Path(info.model).name, info.weight_bytes, info.backend, info.device, info.dtype)
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:10]


Served = NamedDependency[Service]
"""How a route asks for the service."""
