"""What tenants ask for and use, by model: the busiest tenants by name, the rest together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from ..telemetry.labels import OTHER, TopLabels
from .counter import MAX_SERIES, Counter

if TYPE_CHECKING:
    from .exchange import Exchange

MAX_TENANTS = 50
_KINDS = ("prompt", "cached", "generated")


class TenantMetrics(Collector):
    """Counts exchanges as they end. A tenant is who a key belongs to, never what a client says of itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._names = TopLabels(MAX_TENANTS)
        self._sums: dict[tuple[str, str, int], list[int]] = {}  # by tenant, model and status: requests, tokens by kind
        self._cost = Counter("llm_cost", "Cost by tenant, as the price table has it", registry, ["tenant", "model"])
        registry.register(self)

    def limit(self, places: int) -> None:
        """Name so many tenants from now on."""
        self._names = TopLabels(places)

    def answered(self, exchange: Exchange) -> None:
        """Count an exchange that has ended, of a known tenant or for a model."""
        model, principal = exchange.model, exchange.principal
        if model is None and not principal.key_id:
            return
        prompt = cached = generated = 0
        for one in exchange.stats:
            prompt += one.num_prompt_tokens
            cached += one.num_cached_tokens
            generated += one.num_output_tokens
        tenant = self._names.label(principal.tenant, 1 + generated)
        key = (tenant, "" if model is None else model.family, exchange.status)
        sums = self._sums.get(key)
        if sums is None:
            sums = self._new(key)
        sums[0] += 1
        sums[1] += prompt
        sums[2] += cached
        sums[3] += generated

    def charged(self, tenant: str, model: str, amount: float) -> None:
        """Count what a request cost."""
        self._cost.add(amount, self._names.label(tenant, 0.0), model)

    def collect(self) -> Iterator[Metric]:
        """Yield requests by how they ended, and tokens by their kind."""
        self._names.review()
        requests: dict[tuple[str, ...], int] = {}
        tokens: dict[tuple[str, ...], int] = {}
        for (tenant, model, status), (count, *kinds) in self._sums.items():
            ended = (tenant, model, outcome(status))
            requests[ended] = requests.get(ended, 0) + count
            for kind, number in zip(_KINDS, kinds, strict=True):
                used = (tenant, model, kind)
                tokens[used] = tokens.get(used, 0) + number
        for name, text, label, values in (
            ("llm_tenant_requests", "Requests by tenant", "outcome", requests),
            ("llm_tenant_tokens", "Tokens by tenant: of prompts, of those cached, generated", "kind", tokens),
        ):
            family = CounterMetricFamily(name, text, labels=["tenant", "model", label])
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family

    def _new(self, key: tuple[str, str, int]) -> list[int]:
        if len(self._sums) >= MAX_SERIES:
            key = (OTHER, OTHER, key[2])
        return self._sums.setdefault(key, [0, 0, 0, 0])


def outcome(status: int) -> str:
    """Say in a word how an exchange ended."""
    if status < 400:
        return "answered"
    if status >= 500:
        return "failed"
    return {429: "turned_away", 499: "left"}.get(status, "refused")
