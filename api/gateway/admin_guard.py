"""Who may use what tells of all tenants: /admin and /metrics."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from ..server.errors import ApiError
from ..server.exchange import Exchange
from .addresses import is_loopback
from .principal import ANONYMOUS

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_FORWARDED = frozenset({b"forwarded", b"via", b"origin", b"x-real-ip"})


def admin_only(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Litestar's guard for administrative routes. Raises ApiError 403."""
    exchange = Exchange.of(connection.scope)
    if exchange.principal.is_admin:
        return
    if exchange.principal is not ANONYMOUS:
        raise ApiError(403, "this takes an admin key: isotoken keys create --admin", code="admin_required")
    if not _is_local(exchange):
        raise ApiError(
            403, "without API keys, administration is for clients on the same machine", code="admin_required"
        )


def no_tenants(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Litestar's guard for routes that tell of every tenant: a key has to be good for them by name.

    Raises ApiError 403.
    """
    principal = Exchange.of(connection.scope).principal
    if principal.routes is None and not principal.is_admin and principal is not ANONYMOUS:
        path = connection.scope["path"]
        message = f"{path} tells of all tenants: it takes an admin key, or one made with --route {path}"
        raise ApiError(403, message, code="route_not_allowed")


def _is_local(exchange: Exchange) -> bool:
    """Whether the client is of this machine, and no proxy's or web page's doing: those send other Hosts, or say so."""
    headers = dict(exchange.scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    forwarded = any(header in _FORWARDED or header.startswith(b"x-forwarded-") for header in headers)
    return is_loopback(exchange.address) and name in _LOCAL_NAMES and not forwarded
