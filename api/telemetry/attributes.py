"""Attributes of spans: OpenTelemetry's names for HTTP and for generative AI. Never any text of prompts or answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .phases import Value

if TYPE_CHECKING:
    from ..server.exchange import Exchange

OPERATIONS = {
    "/v1/completions": "text_completion",
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/embeddings": "embeddings",
    "/generate": "text_completion",
    "/generate_stream": "text_completion",
    "/": "text_completion",
}
"""The conventions' gen_ai.operation.name of the routes that use a model."""

PROVIDER = "isotoken"


def span_name(exchange: Exchange) -> str:
    """Return the name: the operation and the model where there are such, else the method and the route."""
    operation = OPERATIONS.get(exchange.route)
    if operation is not None and exchange.model is not None:
        return f"{operation} {exchange.model.family}"
    return f"{exchange.scope.get('method', 'GET')} {exchange.route}"


def span_attributes(exchange: Exchange) -> dict[str, Value]:
    """Return what the span of an exchange that has ended says."""
    found: dict[str, Value] = {
        "http.request.method": str(exchange.scope.get("method", "")),
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "isotoken.request_id": exchange.id,
        "isotoken.tenant": exchange.principal.tenant,
    }
    if exchange.arm:
        found["isotoken.arm"] = exchange.arm
    if exchange.principal.key_id:
        found["isotoken.key_id"] = exchange.principal.key_id
    if exchange.status >= 500 or exchange.status == 499:
        found["error.type"] = str(exchange.status)
    if exchange.model is not None and exchange.route in OPERATIONS:
        found |= _generation(exchange)
    return found


def _generation(exchange: Exchange) -> dict[str, Value]:
    model, stats = exchange.model, exchange.stats
    assert model is not None
    found: dict[str, Value] = {
        "gen_ai.operation.name": OPERATIONS[exchange.route],
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model.family,
        "gen_ai.response.model": model.name,
        "isotoken.backend": model.engine.info.backend,
    }
    if stats:
        first = [one.time_to_first_token for one in stats if one.time_to_first_token is not None]
        found |= {
            "gen_ai.usage.input_tokens": sum(one.num_prompt_tokens for one in stats),
            "gen_ai.usage.output_tokens": sum(one.num_output_tokens for one in stats),
            "gen_ai.usage.cache_read.input_tokens": sum(one.num_cached_tokens for one in stats),
            "gen_ai.response.finish_reasons": tuple(reason for one in stats for reason in one.finish_reasons),
            "isotoken.drafted_tokens": sum(one.num_drafted_tokens for one in stats),
            "isotoken.accepted_tokens": sum(one.num_accepted_tokens for one in stats),
        }
        if first:
            found["gen_ai.server.time_to_first_token"] = min(first)
    return found
