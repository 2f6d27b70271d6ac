"""Figures: what two readings of /metrics say about the time between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .scrape import Scrape

LATENCIES = {
    "first token": "llm_time_to_first_token_seconds",
    "between tokens": "llm_inter_token_latency_seconds",
    "in the queue": "llm_queue_time_seconds",
    "whole request": "llm_request_latency_seconds",
}


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of a histogram, in seconds; None: nothing was observed."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """One model. Rates are per second; shares lie between 0 and 1, None where nothing was counted."""

    name: str
    state: str
    running: float
    waiting: float
    places: float  # requests that can run at once
    batch: float
    tokens_per_s: float
    step_s: float
    kv_share: float
    hit_share: float | None
    accepted_share: float | None
    restarts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantFigures:
    """One tenant, over the time between the readings."""

    name: str
    requests_per_s: float
    prompt_per_s: float
    generated_per_s: float
    cached_share: float | None
    cost_per_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The whole server."""

    ready: bool
    requests_per_s: float
    error_share: float | None
    in_flight: float
    limited_per_s: dict[str, float]
    filtered_per_s: dict[str, float]
    latencies: dict[str, Quantiles]
    models: list[ModelFigures]
    tenants: list[TenantFigures]
    cores: float
    memory_bytes: float
    gpu_share: float | None
    cost_per_h: float
    ledger_lag_s: float | None

    @property
    def tokens_per_s(self) -> float:
        """Output tokens of all models."""
        return sum(model.tokens_per_s for model in self.models)

    @property
    def batch(self) -> float:
        """Requests in the latest step of all models."""
        return sum(model.batch for model in self.models)


class Between:
    """Differences between two readings. A counter that fell was reset: it then counts from 0."""

    def __init__(self, before: Scrape, after: Scrape) -> None:
        self.before, self.after = before, after
        self.seconds = max(after.at - before.at, 1e-9)

    def grown(self, name: str, **labels: str) -> float:
        """By how much the sum of a counter's samples grew."""
        was, now = self.before.total(name, **labels), self.after.total(name, **labels)
        return now - was if now >= was else now

    def rate(self, name: str, **labels: str) -> float:
        """Per second."""
        return self.grown(name, **labels) / self.seconds

    def share(self, part: str, whole: str, **labels: str) -> float | None:
        """How much of one counter's growth another's is."""
        total = self.grown(whole, **labels)
        return self.grown(part, **labels) / total if total else None

    def rates_by(self, label: str, name: str) -> dict[str, float]:
        """Per second, for each value of a label that grew."""
        rates = {value: self.rate(name, **{label: value}) for value in self.after.by(label, name)}
        return {value: rate for value, rate in sorted(rates.items()) if rate}

    def quantiles(self, name: str) -> Quantiles:
        """Of what a histogram took in."""
        was = dict(self.before.buckets(name))
        grown = [(bound, count - was.get(bound, 0.0)) for bound, count in self.after.buckets(name)]
        if any(count < 0 for _, count in grown):  # the server was started anew
            grown = self.after.buckets(name)
        p50, p95, p99 = (quantile(share, grown) for share in (0.5, 0.95, 0.99))
        return Quantiles(p50, p95, p99)


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Return a quantile as Prometheus' histogram_quantile does: linear within a bucket, at most the last bound."""
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    lower_bound = lower_count = 0.0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return lower_bound
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / max(count - lower_count, 1e-9)
        lower_bound, lower_count = bound, count
    return lower_bound


def figures(before: Scrape, after: Scrape) -> Figures:
    """Compute everything that is shown."""
    between = Between(before, after)
    errors = sum(between.grown("llm_requests_total", status=status) for status in ("500", "503"))
    requests = between.grown("llm_requests_total")
    gpus = after.by("gpu", "llm_gpu_utilization_ratio")
    return Figures(
        ready=after.total("llm_ready") > 0,
        requests_per_s=requests / between.seconds,
        error_share=errors / requests if requests else None,
        in_flight=after.total("llm_http_requests_in_flight"),
        limited_per_s=between.rates_by("limit", "llm_rate_limited_total"),
        filtered_per_s=between.rates_by("action", "llm_filter_findings_total"),
        latencies={what: between.quantiles(name) for what, name in LATENCIES.items()},
        models=[_model(name, between) for name in sorted(after.by("model", "llm_engine_ready"))],
        tenants=_tenants(between),
        cores=between.rate("llm_cpu_seconds_total"),
        memory_bytes=after.total("llm_resident_memory_bytes"),
        gpu_share=sum(gpus.values()) / len(gpus) if gpus else None,
        cost_per_h=between.rate("llm_cost_total") * 3600,
        ledger_lag_s=after.total("llm_ledger_lag_seconds") if after.has("llm_ledger_lag_seconds") else None,
    )


def _model(name: str, between: Between) -> ModelFigures:
    def now(metric: str) -> float:
        return between.after.total(metric, model=name)

    stuck, ready = now("llm_engine_stuck") > 0, now("llm_engine_ready") > 0
    return ModelFigures(
        name=name,
        state="stuck" if stuck else "ready" if ready else "not ready",
        running=now("llm_requests_running"),
        waiting=now("llm_requests_waiting"),
        places=now("llm_requests_running_max"),
        batch=now("llm_batch_size"),
        tokens_per_s=between.rate("llm_tokens_generated_total", model=name),
        step_s=now("llm_step_duration_seconds"),
        kv_share=now("llm_kv_usage_ratio"),
        hit_share=between.share("llm_prefix_cache_hits_total", "llm_prefix_cache_queries_total", model=name),
        accepted_share=between.share("llm_accepted_tokens_total", "llm_draft_tokens_total", model=name),
        restarts=now("llm_engine_restarts_total"),
    )


def _tenants(between: Between) -> list[TenantFigures]:
    def rate(name: str, tenant: str, **labels: str) -> float:
        return between.rate(name, tenant=tenant, **labels)

    found = []
    for name in between.after.by("tenant", "llm_tenant_requests_total"):
        prompt = rate("llm_tenant_tokens_total", name, kind="prompt")
        found.append(
            TenantFigures(
                name=name,
                requests_per_s=rate("llm_tenant_requests_total", name),
                prompt_per_s=prompt,
                generated_per_s=rate("llm_tenant_tokens_total", name, kind="generated"),
                cached_share=rate("llm_tenant_tokens_total", name, kind="cached") / prompt if prompt else None,
                cost_per_h=rate("llm_cost_total", name) * 3600,
            )
        )
    return sorted(found, key=lambda tenant: (-tenant.generated_per_s, -tenant.requests_per_s, tenant.name))
