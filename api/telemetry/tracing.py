"""Tracing: a span for each request, and for what it went through, told to an OpenTelemetry collector.

A span object is made when a request begins, and its children when it has ended, from the times that were noted anyway:
nothing is done for them while tokens flow. Spans are sent by a thread of the SDK's; a collector that is slow or gone
costs spans, never requests.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ... import __version__
from ..server.requests import header
from .attributes import span_attributes, span_name
from .phases import phases

if TYPE_CHECKING:
    from ..server.exchange import Exchange
    from .settings import TracingSettings

log = logging.getLogger("isotoken.telemetry")

CLOSE_S = 5.0
"""Seconds that the last spans get when the server stops."""


class Trace:
    """What an exchange carries of its trace."""

    __slots__ = ("offset", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.offset = time.time_ns() - time.monotonic_ns()  # clocks may jump in the middle of a request

    def at(self, seconds: float) -> int:
        """Return the wall clock's nanoseconds of a time.monotonic()."""
        return int(seconds * 1e9) + self.offset

    @property
    def is_recorded(self) -> bool:
        """Whether anybody will see it."""
        return self.span.is_recording()

    @property
    def trace_id(self) -> str:
        """As it stands in headers and log lines."""
        return f"{self.span.get_span_context().trace_id:032x}"


class Tracing:
    """Makes the spans of one server."""

    def __init__(self, settings: TracingSettings, exporter: SpanExporter | None = None) -> None:
        """Send spans where the settings say, or to this exporter."""
        self.exporter = CountingExporter(exporter or _otlp(settings))
        resource = Resource.create({SERVICE_NAME: settings.service_name, SERVICE_VERSION: __version__})
        self._provider = TracerProvider(sampler=_sampler(settings), resource=resource, shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(
            self.exporter,
            max_queue_size=settings.max_queue,
            max_export_batch_size=min(512, settings.max_queue),
            schedule_delay_millis=settings.export_interval * 1000,
            export_timeout_millis=settings.export_timeout * 1000,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("isotoken", __version__)
        self._context = TraceContextTextMapPropagator()

    def begin(self, exchange: Exchange) -> Trace:
        """Start a request's span, as a child of the client's where it sent a traceparent."""
        sent = {name: value for name in ("traceparent", "tracestate") if (value := _header(exchange, name))}
        parent = self._context.extract(sent) if sent else None
        return Trace(self._tracer.start_span("request", parent, SpanKind.SERVER))

    def headers(self, trace: Trace) -> dict[str, str]:
        """Return the headers that carry the trace on: in the answer, and to whoever is asked on its behalf."""
        carrier: dict[str, str] = {}
        self._context.inject(carrier, set_span_in_context(trace.span))
        return carrier

    def end(self, exchange: Exchange, trace: Trace) -> None:
        """End the span of an exchange that is over, and tell what it went through."""
        span = trace.span
        if span.is_recording():
            span.update_name(span_name(exchange))
            span.set_attributes(span_attributes(exchange))
            if exchange.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            context = set_span_in_context(span)
            for phase in phases(exchange.started, exchange.timings, exchange.stats):
                start = trace.at(phase.start)
                child = self._tracer.start_span(phase.name, context, attributes=phase.attributes, start_time=start)
                child.end(max(start, trace.at(phase.end)))
        span.end()

    async def flush(self) -> None:
        """Send what waits."""
        await asyncio.to_thread(self._processor.force_flush)

    async def close(self) -> None:
        """Send the last spans, for some seconds at most."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            try:
                self._provider.shutdown()
            finally:
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="isotoken-traces", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), CLOSE_S)
        except TimeoutError:
            log.warning("the last traces could not be sent within %.0f s", CLOSE_S)


class CountingExporter(SpanExporter):
    """Hands spans on and counts them. What goes wrong is logged when it begins, and when it is over."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.num_sent = 0
        self.num_lost = 0
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; called in the SDK's thread."""
        try:
            result = self._exporter.export(spans)
            reason = "the collector refuses them, or cannot be reached"
        except Exception as error:  # whatever a library does there
            result, reason = SpanExportResult.FAILURE, repr(error)
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            self.num_lost += len(spans)
        else:
            self.num_sent += len(spans)
        if failed and not self._fails:
            log.warning("traces are lost: %s", reason)
        elif self._fails and not failed:
            log.info("traces are sent again; %d spans were lost", self.num_lost)
        self._fails = failed
        return result

    def shutdown(self) -> None:
        """Let the exporter end."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Let the exporter send what it holds."""
        return self._exporter.force_flush(timeout_millis)


def _header(exchange: Exchange, name: str) -> str | None:
    return header(exchange.scope, name.encode())


def _sampler(settings: TracingSettings) -> Sampler:
    ratio = TraceIdRatioBased(settings.sample_ratio)
    return ParentBased(ratio) if settings.parent_decides else ratio


def _otlp(settings: TracingSettings) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    # It tells each failure with a traceback; CountingExporter says it once.
    logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
    headers: dict[str, Any] = {name: value.get_secret_value() for name, value in settings.headers.items()}
    return OTLPSpanExporter(traces_url(settings.endpoint), headers=headers, timeout=settings.export_timeout)


def traces_url(endpoint: str) -> str:
    """Return where a collector takes traces: its address alone means the usual path."""
    return endpoint.rstrip("/") + "/v1/traces" if urlsplit(endpoint).path in ("", "/") else endpoint
