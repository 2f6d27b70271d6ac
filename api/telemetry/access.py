"""The access line: one for each HTTP request, with who asked, what for, and how it went. Never any text."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from .json_log import FIELDS
from .phases import totals

if TYPE_CHECKING:
    from ..server.exchange import Exchange

log = logging.getLogger("isotoken.access")


def access_fields(exchange: Exchange, *, with_address: bool) -> dict[str, Any]:
    """Return what the line says."""
    stats, failure = exchange.stats, exchange.scope["state"].get("rejection")
    seconds = {**totals(exchange.started, exchange.timings, stats), "total": time.monotonic() - exchange.started}
    found: dict[str, Any] = {
        "request_id": exchange.id,
        "method": exchange.scope.get("method", ""),
        "route": exchange.route,
        "status": exchange.status,
        "tenant": exchange.principal.tenant,
        "key_id": exchange.principal.key_id or None,
        "model": None if exchange.model is None else exchange.model.name,
        "arm": exchange.arm or None,
        "trace_id": None if exchange.trace is None else exchange.trace.trace_id,
        "address": exchange.address if with_address else None,
        "reason": None if failure is None else failure.limit or failure.code,
        **{f"{name}_ms": round(value * 1000, 3) for name, value in seconds.items()},
    }
    if stats:
        found |= {
            "prompt_tokens": sum(one.num_prompt_tokens for one in stats),
            "cached_tokens": sum(one.num_cached_tokens for one in stats),
            "output_tokens": sum(one.num_output_tokens for one in stats),
            "drafted_tokens": sum(one.num_drafted_tokens for one in stats) or None,
            "finish": "/".join(reason for one in stats for reason in one.finish_reasons),
        }
    return {name: value for name, value in found.items() if value is not None}


def log_access(exchange: Exchange, *, with_address: bool) -> None:
    """Write the line: as `name=value` pairs, or as fields where lines are JSON."""
    if log.isEnabledFor(logging.INFO):
        fields = access_fields(exchange, with_address=with_address)
        short = f"{fields['method']} {exchange.route} {exchange.status}"
        log.info("%s", _Pairs(fields), extra={FIELDS: {"message": short, **fields}})


class _Pairs:
    """Fields as text, made only where lines are text."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._fields.items())
