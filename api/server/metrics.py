"""Prometheus metrics in a registry of their own: histograms fed as requests end, gauges read when asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .gpu import GpuMeter
from .histogram import Histogram
from .rates import SlidingWindow

if TYPE_CHECKING:
    from ..engine import AsyncEngine, EngineStats, RequestStats

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SHORT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_OPERATIONS = ("/health", "/metrics")  # routes whose 503 is an answer, not an error
_WINDOW = 60.0  # seconds over which rates are told


class Metrics:
    """Everything that /metrics shows. Names begin with llm_."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("llm_requests", "HTTP requests answered", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "llm_request_latency_seconds", "From request to last byte", _SECONDS, registry, label="route"
        )
        self.rejections = Counter("llm_rejections", "Requests turned away", ["reason"], registry=registry)
        self.finished_choices = Counter(
            "llm_choices_finished", "Answers by how they ended", ["reason"], registry=registry
        )
        self.prompt_tokens = Counter("llm_prompt_tokens", "Prompt tokens of finished requests", registry=registry)
        self.first_token = self._histogram(
            "llm_time_to_first_token_seconds", "From submission to the first token", _SECONDS
        )
        self.inter_token = self._histogram("llm_inter_token_latency_seconds", "Between tokens", _SHORT_SECONDS)
        self.queue = self._histogram("llm_queue_time_seconds", "From submission to the first step", _SECONDS)
        self.prompt_length = self._histogram("llm_prompt_length_tokens", "Tokens in a request's prompt", _TOKENS)
        self.output_length = self._histogram("llm_output_length_tokens", "Tokens in a request's answers", _TOKENS)
        self.num_http_in_flight = 0
        self._answered: dict[tuple[str, int], Counter] = {}  # as labels() would find them, more slowly
        self._outcomes = SlidingWindow(_WINDOW)
        self._errors = SlidingWindow(_WINDOW)
        registry.register(_ServerCollector(self))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets, self.registry)

    def attach(self, engine: AsyncEngine) -> None:
        """Show this engine's numbers from now on."""
        self.registry.register(EngineCollector(engine))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request that has been answered."""
        counter = self._answered.get((route, status))
        if counter is None:
            counter = self._answered[route, status] = self.requests.labels(route, str(status))
        counter.inc()
        self.latency.observe(seconds, route)
        if not route.startswith(_OPERATIONS):
            self._outcomes.add(1)
            self._errors.add(status >= 500)

    def rejected(self, reason: str) -> None:
        """Count a request that was turned away."""
        self.rejections.labels(reason).inc()

    def finished(self, stats: RequestStats) -> None:
        """Count a request that the engine has finished with."""
        for reason in stats.finish_reasons:
            self.finished_choices.labels(reason).inc()
        self.prompt_tokens.inc(stats.num_prompt_tokens)
        self.prompt_length.observe(stats.num_prompt_tokens)
        self.output_length.observe(stats.num_output_tokens)
        if stats.time_to_first_token is not None:
            self.first_token.observe(stats.time_to_first_token)
        if stats.queue_time is not None:
            self.queue.observe(stats.queue_time)
        self.inter_token.observe_all(stats.inter_token_latencies)

    def error_rate(self) -> float:
        """Return which share of the last minute's requests ended in a server error."""
        total = self._outcomes.total()
        return self._errors.total() / total if total else 0.0

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _ServerCollector(Collector):
    """What is computed when asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the error rate and the requests in flight."""
        in_flight = self._metrics.num_http_in_flight
        yield GaugeMetricFamily("llm_http_requests_in_flight", "HTTP requests being answered", in_flight)
        rate = self._metrics.error_rate()
        yield GaugeMetricFamily("llm_error_rate", "Share of the last minute's requests that ended in a 5xx", rate)


class EngineCollector(Collector):
    """Reads the engine's own numbers when they are asked for: nothing is done for them while tokens flow."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._gpus = GpuMeter(engine.info.device)
        self._tokens = TokenRate()

    def collect(self) -> Iterator[Metric]:
        """Yield gauges and counters of the engine and of its device."""
        stats = self._engine.stats
        yield from self._gauges(stats)
        for name, text, value in (
            ("llm_tokens_generated", "Output tokens", stats.num_new_tokens),
            ("llm_engine_tokens", "Query tokens computed, prompts included", stats.num_tokens),
            ("llm_engine_steps", "Steps of the engine", stats.num_steps),
            ("llm_preemptions", "Requests put back to make room", stats.num_preemptions),
            ("llm_prefix_cache_queries", "Prompt tokens looked up in the prefix cache", stats.num_prefix_queries),
            ("llm_prefix_cache_hits", "Prompt tokens found there", stats.num_prefix_hits),
            ("llm_draft_tokens", "Tokens guessed for speculation", stats.num_drafted),
            ("llm_accepted_tokens", "Of the guesses, those that were right", stats.num_accepted),
            ("llm_draft_stops", "Times that guessing ceased to pay for a request", stats.num_draft_stops),
            ("llm_drafter_failures", "Drafters that failed and were switched off", stats.num_drafter_failures),
            ("llm_engine_restarts", "Restarts of the engine's process", stats.num_restarts),
            ("llm_replayed_choices", "Answers continued after a restart", stats.num_replayed),
            ("llm_failed_alone_choices", "Answers given up because they kill the engine", stats.num_failed_alone),
        ):
            yield CounterMetricFamily(name, text, value)
        yield from self._gpus.collect()

    def _gauges(self, stats: EngineStats) -> Iterator[Metric]:
        used = stats.num_blocks - stats.num_free_blocks
        idle = stats.num_requests_in_flight == 0
        for name, text, value in (
            ("llm_tokens_per_second", "Output tokens a second, of late", self._tokens.rate(stats.num_new_tokens)),
            ("llm_batch_size", "Requests in the latest step; 0 when idle", 0 if idle else stats.num_batched_requests),
            (
                "llm_batch_tokens",
                "Query tokens in the latest step; 0 when idle",
                0 if idle else stats.num_batched_tokens,
            ),
            (
                "llm_requests_undrafted",
                "Requests for which nothing was guessed since it would not pay; 0 when idle",
                0 if idle else stats.num_undrafted,
            ),
            ("llm_step_duration_seconds", "Of the latest step", stats.step_duration),
            ("llm_requests_running", "Requests that hold a row of the batch", stats.num_running),
            ("llm_requests_waiting", "Requests that wait for their first step", stats.num_waiting),
            ("llm_requests_in_flight", "Answers asked for and not yet complete", stats.num_requests_in_flight),
            ("llm_waiting_prompt_tokens", "Of answers without a first token", stats.num_waiting_prompt_tokens),
            ("llm_kv_blocks", "Blocks of K/V memory", stats.num_blocks),
            ("llm_kv_blocks_used", "Of those, held by requests", used),
            ("llm_kv_usage_ratio", "Share of K/V memory held by requests", used / max(1, stats.num_blocks)),
            ("llm_engine_ready", "1 when requests are taken", int(self._engine.state in ("ready", "restarting"))),
        ):
            yield GaugeMetricFamily(name, text, value)


class TokenRate:
    """Tokens a second from a counter that is only looked at now and then: over the time since an earlier look."""

    def __init__(self, at_least: float = 1.0, at_most: float = 15.0) -> None:
        self._at_least = at_least
        self._at_most = at_most
        self._looks: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def rate(self, count: int) -> float:
        """Note the counter and return its rate since a look that is 1 to 15 s old, or the latest older one."""
        now = time.monotonic()
        while len(self._looks) > 1 and now - self._looks[1][0] >= self._at_most:
            del self._looks[0]
        then, before = self._looks[0]
        if now - self._looks[-1][0] >= self._at_least:
            self._looks.append((now, count))
        return max(0, count - before) / max(now - then, 1e-9)
