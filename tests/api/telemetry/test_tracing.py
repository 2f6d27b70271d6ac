"""Traces: a span for each request, the phases below it, the client's trace continued, and no text in any of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

pytest.importorskip(
    "opentelemetry.sdk", reason="OpenTelemetry's SDK is not installed: pip install 'isotoken[telemetry]'"
)

from isotoken.api.server.service import Service
from isotoken.api.telemetry.settings import TelemetrySettings, TracingSettings
from isotoken.api.telemetry.telemetry import Telemetry, open_telemetry
from isotoken.api.telemetry.tracing import Tracing, traces_url
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

SECRET = "the capital of France"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = PARENT[:-2] + "00"


class Traced:
    """Telemetry whose spans land here."""

    def __init__(self, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(TracingSettings(endpoint="http://nowhere", **settings), self.exporter)
        self.telemetry = Telemetry(TelemetrySettings(), self.tracing)

    async def spans(self) -> dict[str, ReadableSpan]:
        await self.tracing.flush()
        found = self.exporter.get_finished_spans()
        self.exporter.clear()
        return {span.name: span for span in found}


def body(**more: Any) -> dict[str, Any]:
    return {"prompt": SECRET, "max_tokens": 6, "temperature": 0, "ignore_eos": True, **more}


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_and_its_phases(with_app: Callable[..., None], stream: bool) -> None:
    traced = Traced()

    async def main(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.post("/v1/completions", json=body(stream=stream))
        assert answer.status_code == 200
        spans = await traced.spans()
        assert set(spans) == {"text_completion tiny", "tokenize", "queue", "prefill", "decode", "detokenize"}
        root = spans.pop("text_completion tiny")
        assert root.kind is SpanKind.SERVER
        assert root.parent is None
        for child in spans.values():
            assert child.parent is not None and root.context is not None
            assert child.parent.span_id == root.context.span_id
            assert child.context is not None and child.context.trace_id == root.context.trace_id
            assert root.start_time <= child.start_time <= child.end_time <= root.end_time  # type: ignore[operator]
        order = [spans[name].start_time or 0 for name in ("tokenize", "queue", "prefill", "decode")]
        assert order == sorted(order)
        assert spans["queue"].end_time == spans["prefill"].start_time
        assert spans["prefill"].end_time == spans["decode"].start_time
        said = dict(root.attributes or {})
        assert {name: said[name] for name in said if name.startswith("gen_ai.usage") or name.startswith("http")} == {
            "gen_ai.usage.input_tokens": len(service.default.text.encode(SECRET)),
            "gen_ai.usage.output_tokens": 6,
            "gen_ai.usage.cache_read.input_tokens": 0,
            "http.request.method": "POST",
            "http.route": "/v1/completions",
            "http.response.status_code": 200,
        }
        assert said["gen_ai.operation.name"] == "text_completion"
        assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == "tiny"
        assert said["gen_ai.response.finish_reasons"] == ("length",)
        assert said["isotoken.request_id"] == answer.headers["x-request-id"]
        assert (spans["decode"].attributes or {})["isotoken.output_tokens"] == 6
        everything = " ".join(span.to_json() for span in (root, *spans.values()))
        assert "France" not in everything and "capital" not in everything

    with_app(main, traced.telemetry)


def test_a_clients_trace_is_continued(with_app: Callable[..., None]) -> None:
    traced = Traced(sample_ratio=0.0)  # the client's decision counts

    async def main(client: httpx.AsyncClient, service: Service) -> None:
        sent = {"traceparent": PARENT, "tracestate": "vendor=value"}
        answer = await client.post("/v1/completions", json=body(), headers=sent)
        root = (await traced.spans())["text_completion tiny"]
        assert root.context is not None and root.parent is not None
        assert f"{root.context.trace_id:032x}" == PARENT[3:35]
        assert f"{root.parent.span_id:016x}" == PARENT[36:52]
        assert answer.headers["traceparent"] == f"{PARENT[:35]}-{root.context.span_id:016x}-01"
        assert answer.headers["tracestate"] == "vendor=value"
        for refused in ({"traceparent": NOT_SAMPLED}, {}, {"traceparent": "00-nonsense"}, {"traceparent": "\xff" * 99}):
            latin = {name: value.encode("latin-1") for name, value in refused.items()}
            answer = await client.post("/v1/completions", json=body(), headers=latin)
            assert answer.status_code == 200
            assert int(answer.headers["traceparent"][-2:], 16) & 1 == 0  # told on, and not recorded
        assert await traced.spans() == {}

    with_app(main, traced.telemetry)


def test_a_share_of_the_requests_is_traced_whatever_clients_want(with_app: Callable[..., None]) -> None:
    traced = Traced(sample_ratio=0.0, parent_decides=False)

    async def main(client: httpx.AsyncClient, service: Service) -> None:
        await client.post("/v1/completions", json=body(), headers={"traceparent": PARENT})
        assert await traced.spans() == {}

    with_app(main, traced.telemetry)


def test_what_fails_and_what_is_refused(with_app: Callable[..., None]) -> None:
    traced = Traced()

    async def main(client: httpx.AsyncClient, service: Service) -> None:
        await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": SECRET}], "top_p": 9})
        await client.get("/metrics")
        await client.get("/health/ready")
        spans = await traced.spans()
        (span,) = spans.values()  # nobody wants to see probes
        assert span.name == "chat tiny"
        assert (span.attributes or {})["http.response.status_code"] == 400
        assert span.status.status_code is StatusCode.UNSET  # the client's fault
        service.draining = True
        await client.post("/v1/completions", json=body())
        (span,) = [span for span in (await traced.spans()).values() if span.parent is None]
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "503"

    with_app(main, traced.telemetry)


class Collector(HTTPServer):
    """Takes OTLP over HTTP as any collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.headers: list[dict[str, str]] = []
        self.batches: list[ExportTraceServiceRequest] = []
        self.came = threading.Event()

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for batch in self.batches
            for resource in batch.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        self.server.headers.append({**self.headers, "path": self.path})
        if self.server.status == 200:
            self.server.batches.append(ExportTraceServiceRequest.FromString(content))
        self.send_response(self.server.status)
        self.end_headers()
        self.server.came.set()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def opened(collector: Collector, service: Service, **more: Any) -> Telemetry:
    """Telemetry as the server itself opens it."""
    url = f"http://127.0.0.1:{collector.server_port}"
    tracing = TracingSettings(endpoint=url, headers={"x-api-key": "hush"}, export_interval=0.05, **more)  # type: ignore[dict-item]
    telemetry = open_telemetry(TelemetrySettings(tracing=tracing), service.metrics)
    assert telemetry is not None
    return telemetry


def test_spans_reach_a_collector(with_app: Callable[..., None], collector: Collector) -> None:
    async def main(client: httpx.AsyncClient, service: Service) -> None:
        service.stages.telemetry = telemetry = opened(collector, service, service_name="mine")
        answer = await client.post("/v1/completions", json=body())
        assert await asyncio.to_thread(collector.came.wait, 30)
        await telemetry.close()  # type: ignore[attr-defined]
        assert {span.name for span in collector.spans} >= {"text_completion tiny", "prefill", "decode"}
        (trace_id,) = {span.trace_id.hex() for span in collector.spans}
        assert trace_id == answer.headers["traceparent"].split("-")[1]
        resource = {
            each.key: each.value.string_value for each in collector.batches[0].resource_spans[0].resource.attributes
        }
        assert resource["service.name"] == "mine"
        assert collector.headers[0]["path"] == "/v1/traces"
        assert collector.headers[0]["x-api-key"] == "hush"
        assert b"France" not in b"".join(batch.SerializeToString() for batch in collector.batches)
        assert (
            f'llm_spans_exported_total{{result="success"}} {len(collector.spans)}.0' in service.metrics.text().decode()
        )

    with_app(main, None)


def test_a_collector_that_refuses_costs_spans_and_nothing_else(
    with_app: Callable[..., None], collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400

    async def main(client: httpx.AsyncClient, service: Service) -> None:
        service.stages.telemetry = telemetry = opened(collector, service, max_queue=4)
        for _ in range(3):
            assert (await client.post("/v1/completions", json=body())).status_code == 200
        assert await asyncio.to_thread(collector.came.wait, 30)
        await telemetry.close()  # type: ignore[attr-defined]
        assert 'llm_spans_exported_total{result="failure"}' in service.metrics.text().decode()
        assert caplog.text.count("traces are lost") == 1  # said once

    with_app(main, None)


def test_a_collector_that_is_not_there_holds_nobody_up(with_app: Callable[..., None]) -> None:
    async def main(client: httpx.AsyncClient, service: Service) -> None:
        settings = TracingSettings(endpoint="http://127.0.0.1:9", export_interval=0.05, export_timeout=0.2)
        service.stages.telemetry = telemetry = open_telemetry(TelemetrySettings(tracing=settings), service.metrics)
        assert telemetry is not None
        for _ in range(3):
            assert (await client.post("/v1/completions", json=body())).status_code == 200
        async with asyncio.timeout(10):
            await telemetry.close()

    with_app(main, None)


def test_addresses_of_collectors() -> None:
    assert traces_url("http://here:4318") == traces_url("http://here:4318/") == "http://here:4318/v1/traces"
    assert traces_url("https://there/otlp/v1/traces") == "https://there/otlp/v1/traces"
