"""The hooks of isotoken: what a plugin may provide. Each is called once at start-up unless it says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pluggy

from ..core.capabilities import Exclusion
from ..core.types import StepStats

PROJECT = "isotoken"
API_VERSION = "1.3"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """Claims a name for a factory. A second owner for a name is refused."""

    def __call__(self, name: str, factory: Callable[..., Any], *, description: str = "") -> None:
        """Claim `name` for `factory`."""


@hookspec
def register_backends(register: Register) -> None:
    """Claim backend names; factory() -> Backend, which may import its engine."""


@hookspec
def register_schedulers(register: Register) -> None:
    """Claim scheduler names; factory(kv_cache, SchedulerConfig) -> Scheduler."""


@hookspec
def register_kv_caches(register: Register) -> None:
    """Claim KV cache names; factory(RunnerInfo, KVCacheConfig) -> KVCache."""


@hookspec
def register_samplers(register: Register) -> None:
    """Claim sampler names; factory(RunnerInfo) -> Sampler, used instead of the runner's own."""


@hookspec
def register_drafters(register: Register) -> None:
    """Claim drafter names; factory(DrafterContext) -> Drafter."""


@hookspec
def register_exporters(register: Register) -> None:
    """Claim names of formats that models can be exported to; factory() -> Exporter, which may import its library."""


@hookspec
def register_quantizations(register: Register) -> None:
    """Claim names for ways to store weights; factory() -> QuantizationScheme. Backends declare which they do."""


@hookspec
def register_grammars(register: Register) -> None:
    """Claim names of grammar compilers; factory(GrammarContext) -> GrammarCompiler, which may import its library."""


@hookspec
def register_filters(register: Register) -> None:
    """Claim names of filters of prompts and outputs; factory(options, FilterContext) -> () -> api.safety.Filter."""


@hookspec
def register_classifiers(register: Register) -> None:
    """Claim names of classifiers behind /v1/moderations; factory() -> api.safety.Classifier."""


@hookspec
def register_authenticators(register: Register) -> None:
    """Claim names of ways to tell who asks; async factory(GatewayContext) -> Authenticator: API keys, OIDC, ..."""


@hookspec
def register_limiters(register: Register) -> None:
    """Claim names of counters behind limits; async factory(GatewayContext) -> Limiter."""


@hookspec
def register_ledgers(register: Register) -> None:
    """Claim names of places for usage entries; async factory(LedgerContext) -> Sink: a billing system, a queue, ..."""


@hookspec
def register_routers(register: Register) -> None:
    """Claim names of what picks a model for a prompt; factory(options: Mapping[str, float]) -> api.routing Router."""


@hookspec(firstresult=True)
def load_tokenizer(model_dir: Path) -> Any:
    """Return a tokenizers.Tokenizer (or its like) for a model folder without tokenizer.json; called once a model."""


@hookspec
def api_routes() -> Sequence[Any]:  # type: ignore[empty-body]
    """Return Litestar route handlers to serve beside the built-in ones; only for plugins enabled by name."""


@hookspec
def on_step(stats: StepStats) -> None:
    """See one engine step in numbers; called once a step in the engine's process."""


@hookspec
def on_request_finished(stats: Any) -> None:
    """See one finished request in numbers (api.engine.RequestStats); called once a request in the API's process."""


@hookspec
def conformance_exclusions(backend: str) -> Sequence[Exclusion]:  # type: ignore[empty-body]
    """Return the conformance tests that a backend of this plugin is known to fail."""
