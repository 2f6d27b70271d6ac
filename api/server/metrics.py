"""Prometheus metrics in a registry of their own: counted as requests end, or read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .counter import Counter
from .engine_metrics import EngineMetrics
from .histogram import Histogram
from .process_metrics import ProcessMetrics
from .rates import SlidingWindow
from .tenant_metrics import TenantMetrics, outcome

if TYPE_CHECKING:
    from ..engine import AsyncEngine, RequestStats
    from .exchange import Exchange

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SHORT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_OPERATIONS = ("/health", "/metrics")  # routes whose 503 is an answer, not an error
_LIMITS = (
    *(f"{who}_{what}" for who in ("key", "address") for what in ("requests", "tokens", "concurrency")),
    "queue",
    "budget",
)
_WINDOW = 60.0  # seconds over which rates are told


class Metrics:
    """Everything that /metrics shows. Names begin with llm_. No label's value comes from a client as it is."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("llm_requests", "HTTP requests answered", registry, ["route", "status"])
        self.latency = Histogram(
            "llm_request_latency_seconds", "From request to last byte", _SECONDS, registry, label="route"
        )
        self.limited = Counter(
            "llm_rate_limited",
            "Requests past a limit, by which one",
            registry,
            ["limit"],
            start=[(name,) for name in _LIMITS],
        )
        self.rejections = Counter("llm_rejections", "Requests turned away", registry, ["reason"])
        self.arms = Counter("llm_arm_requests", "Requests by arm of an experiment", registry, ["arm", "outcome"])
        self.finished_choices = Counter(
            "llm_choices_finished", "Answers by how they ended", registry, ["model", "reason"]
        )
        self.first_token = self._histogram(
            "llm_time_to_first_token_seconds", "From submission to the first token", _SECONDS
        )
        self.inter_token = self._histogram("llm_inter_token_latency_seconds", "Between tokens", _SHORT_SECONDS)
        self.queue = self._histogram("llm_queue_time_seconds", "From submission to the first step", _SECONDS)
        self.prompt_length = self._histogram("llm_prompt_length_tokens", "Tokens in a request's prompt", _TOKENS)
        self.output_length = self._histogram("llm_output_length_tokens", "Tokens in a request's answers", _TOKENS)
        self.tenants = TenantMetrics(registry)
        self.engines = EngineMetrics()
        self.num_http_in_flight = 0
        self.is_ready = False  # as whoever asks for the text says
        self._statuses: dict[int, str] = {}
        self._outcomes = SlidingWindow(_WINDOW)
        self._errors = SlidingWindow(_WINDOW)
        for collector in (_ServerCollector(self), self.engines, ProcessMetrics(self._engine_pids)):
            registry.register(collector)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets, self.registry, label="model")

    def _engine_pids(self) -> Iterator[int]:
        return (engine.pid for engine in self.engines.engines if engine.pid is not None)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a gauge that is read whenever the metrics are."""
        self.registry.register(_Watched(name, text, read))

    def attach(self, engine: AsyncEngine, model: str) -> None:
        """Show an engine's numbers under its model's name, until it is detached."""
        self.engines.attach(engine, model)

    def detach(self, engine: AsyncEngine) -> None:
        """An engine ends. What it has counted stays counted."""
        self.engines.detach(engine)

    def rejected(self, reason: str) -> None:
        """Count a request that was turned away before there was an exchange."""
        self.rejections.add(1, reason)

    def charged(self, tenant: str, model: str, amount: float) -> None:
        """Count what a request cost."""
        self.tenants.charged(tenant, model, amount)

    def answered(self, exchange: Exchange, seconds: float) -> None:
        """Count an exchange that has ended: the answer is out, or the client has left."""
        route, status = exchange.route, exchange.status
        told = self._statuses.get(status)
        if told is None:
            told = self._statuses[status] = str(status)
        self.requests.add(1, route, told)
        self.latency.observe(seconds, route)
        if not route.startswith(_OPERATIONS):
            self._outcomes.add(1)
            if status >= 500:
                self._errors.add(1)
        failure = exchange.scope["state"].get("rejection")
        if failure is not None:
            self.rejections.add(1, failure.code or "")
            if failure.limit:
                self.limited.add(1, failure.limit)
        if exchange.arm:
            self.arms.add(1, exchange.arm, outcome(status))
        self.tenants.answered(exchange)

    def finished(self, stats: RequestStats, exchange: Exchange) -> None:
        """Count a prompt that the engine has finished with."""
        model = "" if exchange.model is None else exchange.model.family
        for reason in stats.finish_reasons:
            self.finished_choices.add(1, model, reason)
        self.prompt_length.observe(stats.num_prompt_tokens, model)
        self.output_length.observe(stats.num_output_tokens, model)
        if stats.time_to_first_token is not None:
            self.first_token.observe(stats.time_to_first_token, model)
        if stats.queue_time is not None:
            self.queue.observe(stats.queue_time, model)
        self.inter_token.observe_all(stats.inter_token_latencies, model)

    def error_rate(self) -> float:
        """Return which share of the last minute's requests ended in a server error."""
        total = self._outcomes.total()
        return self._errors.total() / total if total else 0.0

    def text(self, *, is_ready: bool = False) -> bytes:
        """Return everything in Prometheus' text format."""
        self.is_ready = is_ready
        return generate_latest(self.registry)


class _ServerCollector(Collector):
    """What is computed when asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the error rate, the requests in flight and whether more are wanted."""
        in_flight = self._metrics.num_http_in_flight
        yield GaugeMetricFamily("llm_http_requests_in_flight", "HTTP requests being answered", in_flight)
        rate = self._metrics.error_rate()
        yield GaugeMetricFamily("llm_error_rate", "Share of the last minute's requests that ended in a 5xx", rate)
        prompts = CounterMetricFamily("llm_prompt_tokens", "Prompt tokens of finished requests", labels=["model"])
        for model, total in self._metrics.prompt_length.sums.items():
            prompts.add_metric([model], total)
        yield prompts
        yield GaugeMetricFamily("llm_ready", "1 when load balancers may send requests", int(self._metrics.is_ready))


class _Watched(Collector):
    """A gauge of somebody else's. One that cannot be read just now is left out."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._name, self._text, self._read = name, text, read

    def collect(self) -> Iterator[Metric]:
        """Yield it."""
        try:
            value = self._read()
        except Exception:
            return
        yield GaugeMetricFamily(self._name, self._text, value)
