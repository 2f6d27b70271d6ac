"""What tenants ask for and use, by model: the busiest tenants by name, the rest together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from ..telemetry.labels import TopLabels
from .counter import Counter

if TYPE_CHECKING:
    from .exchange import Exchange

MAX_TENANTS = 50


class TenantMetrics:
    """Counts exchanges as they end. A tenant is who a key belongs to, never what a client says of itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._names = TopLabels(MAX_TENANTS)
        self._requests = Counter("llm_tenant_requests", "Requests by tenant", registry, ["tenant", "model", "outcome"])
        self._tokens = Counter(
            "llm_tenant_tokens", "Tokens by tenant: of prompts, of those cached, generated", registry,
            ["tenant", "model", "kind"],
        )  # fmt: skip
        self._cost = Counter("llm_cost", "Cost by tenant, as the price table has it", registry, ["tenant", "model"])

    def limit(self, places: int) -> None:
        """Name so many tenants from now on."""
        self._names = TopLabels(places)

    def answered(self, exchange: Exchange) -> None:
        """Count an exchange that has ended, of a known tenant or for a model."""
        model, principal = exchange.model, exchange.principal
        if model is None and not principal.key_id:
            return
        num_prompt = num_cached = num_generated = 0
        for one in exchange.stats:
            num_prompt += one.num_prompt_tokens
            num_cached += one.num_cached_tokens
            num_generated += one.num_output_tokens
        tenant = self._names.label(principal.tenant, 1.0 + num_generated)
        name = "" if model is None else model.family
        self._requests.add(1, tenant, name, outcome(exchange.status))
        if num_prompt:
            self._tokens.add(num_prompt, tenant, name, "prompt")
            self._tokens.add(num_cached, tenant, name, "cached")
            self._tokens.add(num_generated, tenant, name, "generated")

    def charged(self, tenant: str, model: str, amount: float) -> None:
        """Count what a request cost."""
        self._cost.add(amount, self._names.label(tenant, 0.0), model)


def outcome(status: int) -> str:
    """Say in a word how an exchange ended."""
    if status < 400:
        return "answered"
    if status >= 500:
        return "failed"
    return {429: "turned_away", 499: "left"}.get(status, "refused")
