"""A company's own authenticator and limiter take the built-in ones' places, by name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from isotoken.api.gateway.assembly import GatewayContext, open_gate
from isotoken.api.gateway.authentication import Credential
from isotoken.api.gateway.gate import Gate
from isotoken.api.gateway.limiter import Demand, MemoryLimiter, Verdict
from isotoken.api.gateway.principal import KeyLimits, Principal
from isotoken.api.gateway.settings import GatewaySettings
from isotoken.api.server.errors import ApiError
from isotoken.api.server.exchange import Exchange
from isotoken.plugins.hookspecs import API_VERSION, hookimpl
from isotoken.plugins.manager import PluginError, Plugins
from prometheus_client import CollectorRegistry

ISOTOKEN_API = API_VERSION


class Badges:
    """Knows who wears a badge, by a header of its own."""

    def __init__(self) -> None:
        self.is_closed = False

    async def authenticate(self, credential: Credential) -> Principal | None:
        badge = dict(credential.headers).get(b"x-badge", b"").decode()
        if not badge:
            return None
        key_id = "" if badge == "guest" else f"badge-{badge}"
        return Principal(key_id=key_id, tenant=badge, limits=KeyLimits(requests_per_minute=2))

    async def close(self) -> None:
        self.is_closed = True


class Watched(MemoryLimiter):
    """Counts as the built-in one, and remembers who was counted."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    async def take(self, demands: Sequence[Demand], holder: str) -> Verdict:
        self.names += [demand.name for demand in demands]
        return await super().take(demands, holder)


badges, watched = Badges(), Watched()


async def _badges(context: GatewayContext) -> Badges:
    assert context.settings.authenticator == "badges"
    return badges


async def _watched(context: GatewayContext) -> Watched:
    return watched


@hookimpl
def register_authenticators(register: Any) -> None:
    register("badges", _badges)


@hookimpl
def register_limiters(register: Any) -> None:
    register("watched", _watched)


async def no_store() -> Any:
    raise AssertionError("nobody needs a database")


async def opened(**settings: Any) -> Gate:
    plugins = Plugins.load([("company", sys.modules[__name__])])
    gate = await open_gate(GatewaySettings(**settings), no_store, plugins, CollectorRegistry())
    assert gate is not None
    return gate


def arriving(**headers: str) -> Exchange:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "headers": pairs,
        "client": ("192.0.2.1", 1),
        "state": {},
    }
    return Exchange(scope, receive)


def test_they_decide() -> None:
    async def test() -> None:
        gate = await opened(authenticator="badges", limiter="watched")
        exchange = arriving(x_badge="alice")
        await gate.enter(exchange)
        assert exchange.principal.tenant == "alice"
        assert exchange.principal.cache_salt  # made here, whoever says who it is
        with pytest.raises(ApiError) as refused:
            await gate.enter(arriving(authorization="Bearer alice"))
        assert refused.value.failure.status == 401
        await gate.enter(arriving(x_badge="alice"))
        with pytest.raises(ApiError) as refused:
            await gate.enter(arriving(x_badge="alice"))
        assert refused.value.failure.status == 429
        assert watched.names == ["requests:badge-alice"] * 3
        await gate.close()
        assert badges.is_closed

    asyncio.run(test())


def test_limits_hold_where_no_key_is_named() -> None:
    async def test() -> None:
        gate = await opened(authenticator="badges")
        for _ in range(2):
            await gate.enter(arriving(x_badge="guest"))
        with pytest.raises(ApiError) as refused:
            await gate.enter(arriving(x_badge="guest"))
        assert refused.value.failure.status == 429
        await gate.enter(arriving(x_badge="alice"))
        await gate.close()

    asyncio.run(test())


def test_a_name_that_nobody_claims_is_an_error() -> None:
    with pytest.raises(PluginError, match=r"unknown authenticator 'badgers'.*did you mean 'badges'"):
        asyncio.run(opened(authenticator="badgers"))


def test_nothing_configured_is_no_gate_at_all() -> None:
    assert asyncio.run(open_gate(GatewaySettings(), no_store, Plugins.load(), CollectorRegistry())) is None
