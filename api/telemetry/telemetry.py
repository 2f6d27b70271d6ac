"""Telemetry: what the Observer tells of each exchange, as the settings want it told. It never harms a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from .access import log_access
from .json_log import JsonFormatter
from .phases import totals
from .server_timing import server_timing

if TYPE_CHECKING:
    from ..server.exchange import Exchange
    from ..server.metrics import Metrics
    from .settings import TelemetrySettings
    from .tracing import CountingExporter, Tracing

log = logging.getLogger("isotoken.telemetry")

PROBES = ("/health", "/metrics")
"""Routes that nobody wants to read about a thousand times an hour: they have no spans and no access lines."""


class Telemetry:
    """One server's."""

    def __init__(self, settings: TelemetrySettings, tracing: Tracing | None = None) -> None:
        self._settings = settings
        self._tracing = tracing
        self._has_failed = False

    def begin(self, exchange: Exchange) -> None:
        """A request has arrived."""
        if self._tracing is not None and not _is_probe(exchange.scope["path"]):
            self._safely(self._begin_trace, exchange)

    def head(self, exchange: Exchange) -> None:
        """An answer's head is about to leave: add headers to it."""
        if exchange.trace is not None or self._settings.server_timing:
            self._safely(self._add_headers, exchange)

    def end(self, exchange: Exchange) -> None:
        """The answer is out, or the client has left."""
        if exchange.trace is not None:
            self._safely(self._end_trace, exchange)
        if self._settings.access_log and not _is_probe(exchange.scope["path"]):
            self._safely(self._log_access, exchange)

    def headers(self, exchange: Exchange) -> Mapping[str, str]:
        """Return what carries the exchange's trace on to a server that is asked on its behalf."""
        if self._tracing is None or exchange.trace is None:
            return {}
        return self._tracing.headers(exchange.trace)

    async def close(self) -> None:
        """Send what is left to send."""
        if self._tracing is not None:
            await self._tracing.close()

    def _begin_trace(self, exchange: Exchange) -> None:
        assert self._tracing is not None
        exchange.trace = self._tracing.begin(exchange)

    def _add_headers(self, exchange: Exchange) -> None:
        exchange.headers.update(self.headers(exchange))
        if self._settings.server_timing:
            stats = exchange.stats or [recorder.stats() for recorder in exchange.recorders]
            seconds = totals(exchange.started, exchange.timings, stats)
            if not exchange.stats:  # a stream: how long it will take to write is not known yet
                seconds = {name: value for name, value in seconds.items() if name in ("tokenize", "queue", "prefill")}
            seconds["total"] = time.monotonic() - exchange.started
            exchange.headers["server-timing"] = server_timing(seconds)

    def _end_trace(self, exchange: Exchange) -> None:
        assert self._tracing is not None
        assert exchange.trace is not None
        self._tracing.end(exchange, exchange.trace)

    def _log_access(self, exchange: Exchange) -> None:
        log_access(exchange, with_address=self._settings.log_addresses)

    def _safely(self, work: Callable[[Exchange], None], exchange: Exchange) -> None:
        """Do what a request must not depend on. A failure is told once: the next would be the same."""
        try:
            work(exchange)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                log.exception("telemetry failed; this is told once")


def open_telemetry(settings: TelemetrySettings, metrics: Metrics) -> Telemetry | None:
    """Return what the settings ask for; None where that is nothing. Raises ValueError."""
    if settings.log_format == "json":
        write_json()
    metrics.tenants.limit(settings.max_tenant_labels)
    tracing = None
    if settings.tracing.endpoint:
        tracing = _open_tracing(settings)
        metrics.registry.register(_TraceMetrics(tracing.exporter))
    if settings.access_log:  # one line a request is enough: the engine's own, of each prompt, are left out
        logging.getLogger("isotoken.requests").setLevel(logging.WARNING)
    if tracing is None and not settings.access_log and not settings.server_timing:
        return None
    return Telemetry(settings, tracing)


def write_json() -> None:
    """Let isotoken's log, wherever it goes, be one JSON object a line from now on."""
    for handler in logging.getLogger("isotoken").handlers:
        handler.setFormatter(JsonFormatter())


def _open_tracing(settings: TelemetrySettings) -> Tracing:
    try:
        from .tracing import Tracing  # noqa: PLC0415  (OpenTelemetry's SDK is an extra)
    except ModuleNotFoundError as error:
        raise ValueError(f"traces need {error.name}: pip install 'isotoken[telemetry]'") from error
    return Tracing(settings.tracing)


class _TraceMetrics(Collector):
    """How many spans reached the collector."""

    def __init__(self, exporter: CountingExporter) -> None:
        self._exporter = exporter

    def collect(self) -> Iterator[Metric]:
        """Yield it."""
        family = CounterMetricFamily(
            "llm_spans_exported", "Spans by whether they reached the collector", labels=["result"]
        )
        family.add_metric(["success"], self._exporter.num_sent)
        family.add_metric(["failure"], self._exporter.num_lost)
        yield family


def _is_probe(path: str) -> bool:
    return path.startswith(PROBES)
