"""How a server is watched: traces, the log's form, and what /metrics may tell apart. Everything is off by default."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TracingSettings(_Settings):
    """OpenTelemetry spans, sent over OTLP/HTTP. Needs the extra `telemetry`."""

    endpoint: str = Field(
        default="", description="An OTLP/HTTP collector, such as http://localhost:4318. Empty: no traces."
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Sent along with each export.")
    service_name: str = Field(default="isotoken", min_length=1, description="What the traces call this server.")
    sample_ratio: float = Field(default=1.0, ge=0, le=1, description="Share of requests that are traced.")
    parent_decides: bool = Field(
        default=True,
        description="Follow the client's own decision where it sent a traceparent; false: the ratio alone.",
    )
    max_queue: int = Field(default=2048, ge=1, description="Spans that may wait for the collector; more are dropped.")
    export_interval: float = Field(
        default=5.0, gt=0, description="Seconds that spans are gathered before they are sent."
    )
    export_timeout: float = Field(default=5.0, gt=0, description="Seconds that one export may take.")


class TelemetrySettings(_Settings):
    """What an operator sees of a server."""

    tracing: TracingSettings = Field(default_factory=TracingSettings)
    log_format: Literal["text", "json"] = Field(
        default="text", description="Lines of text, or one JSON object per line."
    )
    access_log: bool = Field(default=False, description="One line for each HTTP request, in place of one per prompt.")
    log_addresses: bool = Field(default=False, description="Name the client's address in the access line.")
    server_timing: bool = Field(default=False, description="Send a Server-Timing header: where an answer's time went.")
    max_tenant_labels: int = Field(
        default=50, ge=1, le=1000, description="Tenants that /metrics names; the rest is `other`."
    )
