"""Gate: who comes in, how often, and in which turn. What every request passes before it costs anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import ceil
from typing import TYPE_CHECKING

from ..server.errors import ApiError
from .addresses import Addresses, site_of
from .authentication import Authenticator, credential_of
from .bounds import bounded, output_room
from .limiter import Demand, Limiter, Verdict
from .principal import ANONYMOUS, KeyLimits, Principal, routes_of
from .rate_headers import rate_headers
from .salts import Salts
from .stay import Stay
from .turnstiles import Turnstiles

if TYPE_CHECKING:
    from ..engine import GenerationStream
    from ..server.exchange import Exchange
    from ..text import SamplingParams
    from .key_admin import KeyAdmin

GENERATING = frozenset(
    {"/v1/completions", "/v1/chat/completions", "/generate", "/generate_stream", "/", "/v1/moderations"}
)
"""Routes (POST) that use an engine: they are shed when the queue is full."""

_NO_LIMITS = KeyLimits()


class Gate:
    """One for each server process."""

    def __init__(
        self,
        *,
        limiter: Limiter,
        authenticator: Authenticator | None = None,
        turnstiles: Turnstiles | None = None,
        addresses: Addresses | None = None,
        salts: Salts | None = None,
        public_routes: tuple[str, ...] = (),
        default_limits: KeyLimits = _NO_LIMITS,
        address_limits: KeyLimits = _NO_LIMITS,
        keys: KeyAdmin | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limiter = limiter
        self._authenticator = authenticator
        self.turnstiles = turnstiles
        self._addresses = addresses or Addresses()
        self._salts = salts or Salts()
        self._public = Principal(routes=routes_of(public_routes))
        self._default_limits = default_limits
        self._address_limits = address_limits
        self.keys = keys  # None: isotoken's own keys are not in use
        self._clock = clock
        self._stays: dict[int, Stay] = {}  # by the exchange's identity: ids come from clients

    async def enter(self, exchange: Exchange) -> None:
        """Say whose request it is and let it in. Raises ApiError 401, 403 and 429, Overloaded and NotReady."""
        method, path = exchange.scope.get("method", ""), exchange.scope["path"]
        path = path.rstrip("/") or "/"  # as the router takes it
        if method in ("GET", "HEAD") and self._public.may_use_route(path):  # a probe is never one request too many
            if self._authenticator is not None:
                exchange.principal = self._public
            return
        address = self._addresses.of(exchange.scope)
        stay = Stay(exchange.principal)
        try:
            await self._limit_address(exchange, stay, address)
            principal = await self._identify(exchange, address)
            if not principal.may_use_route(path):
                raise ApiError(403, f"this key may not use {path}", code="route_not_allowed")
            exchange.principal = principal
            stay.principal = principal
            if self.turnstiles is not None and method == "POST" and path in GENERATING:
                self.turnstiles.arrive(stay)
            await self._limit_key(exchange, stay)
        except BaseException:
            self._leave(stay, exchange)
            raise
        self._stays[id(exchange)] = stay
        exchange.on_end.append(self.leave)

    def allow_model(self, exchange: Exchange, name: str) -> None:
        """Accept the model that is asked for. Raises ApiError 403."""
        if not exchange.principal.may_use_model(name):
            raise ApiError(403, f"this key may not use the model {name!r}", param="model", code="model_not_allowed")

    async def admit(self, exchange: Exchange, prompt_lens: Sequence[int], params: SamplingParams) -> SamplingParams:
        """Wait for the request's turn; return its parameters, kept within the key's limits.

        Raises ApiError 400 and 429, ParameterError and Overloaded.
        """
        stay = self._stays.get(id(exchange))
        if stay is None or exchange.model is None:
            return params
        self._settle(stay, exchange)
        max_model_len = exchange.model.engine.info.max_model_len
        for whose, limits in (("your address", self._address_limits), ("this key", stay.principal.limits)):
            params = bounded(params, max(prompt_lens), limits, max_model_len, whose)
        num_choices = len(prompt_lens) * params.n
        tokens = sum(prompt_lens) + num_choices * output_room(params, max(prompt_lens), max_model_len)
        await self._reserve(exchange, stay, max(1, tokens))
        if self.turnstiles is not None:
            started = time.monotonic()
            await self.turnstiles.enter(stay, exchange.model, tokens, num_choices)
            exchange.timings["queue"] = time.monotonic() - started
        return params

    def watch(self, exchange: Exchange, streams: Sequence[GenerationStream]) -> None:
        """Give the request's place away when the engine is done with it: its reader may take its time."""
        stay = self._stays.get(id(exchange))
        if stay is None or stay.turn is None or self.turnstiles is None:
            return
        turnstiles, num_open = self.turnstiles, len(streams)

        def over() -> None:
            nonlocal num_open
            num_open -= 1
            if not num_open:
                turnstiles.vacate(stay)

        for stream in streams:
            stream.on_over = over

    def leave(self, exchange: Exchange) -> None:
        """The answer is out, or the client has left: settle what was used."""
        stay = self._stays.pop(id(exchange), None)
        if stay is not None:
            self._leave(stay, exchange)

    async def close(self) -> None:
        """The server ends."""
        await self._limiter.close()
        if self._authenticator is not None:
            await self._authenticator.close()

    # --- who --------------------------------------------------------------------------------------

    async def _identify(self, exchange: Exchange, address: str) -> Principal:
        if self._authenticator is None:
            return ANONYMOUS
        credential = credential_of(exchange.scope, address)
        principal = await self._authenticator.authenticate(credential)
        if principal is None or (principal.expires is not None and principal.expires <= self._clock()):
            raise _unauthorized(bool(credential.token), expired=principal is not None)
        limits = principal.limits
        if self._default_limits != _NO_LIMITS:
            given = {name: value for name, value in asdict(limits).items() if value is not None}
            limits = replace(self._default_limits, **given)
        return replace(principal, limits=limits, cache_salt=self._salts.of(principal.tenant))

    # --- how much ---------------------------------------------------------------------------------

    async def _limit_address(self, exchange: Exchange, stay: Stay, address: str) -> None:
        stay.address = site_of(address)
        await self._limit(exchange, stay, f"address:{stay.address}", self._address_limits)

    async def _limit_key(self, exchange: Exchange, stay: Stay) -> None:
        await self._limit(exchange, stay, _bucket_of(stay.principal), stay.principal.limits)

    async def _limit(self, exchange: Exchange, stay: Stay, bucket: str, limits: KeyLimits) -> None:
        demands = []
        if limits.requests_per_minute is not None:
            demands.append(Demand(bucket, "requests", limits.requests_per_minute))
        if limits.max_concurrency is not None:
            demands.append(Demand(bucket, "concurrency", limits.max_concurrency))
        if not demands:
            return
        verdict = await self._limiter.take(demands, f"{id(stay):x}")
        exchange.headers |= rate_headers(demands, verdict.levels)
        _check_verdict(verdict)
        stay.places += [demand for demand in demands if demand.kind == "concurrency"]

    async def _reserve(self, exchange: Exchange, stay: Stay, tokens: int) -> None:
        buckets = (
            (f"address:{stay.address}", self._address_limits),
            (_bucket_of(stay.principal), stay.principal.limits),
        )
        demands = [
            Demand(bucket, "tokens", limits.tokens_per_minute, min(tokens, limits.tokens_per_minute))
            for bucket, limits in buckets
            if limits.tokens_per_minute is not None
        ]
        if demands:
            verdict = await self._limiter.take(demands, f"{id(stay):x}")
            exchange.headers |= rate_headers(demands, verdict.levels)
            _check_verdict(verdict)
            stay.reserved = demands

    def _leave(self, stay: Stay, exchange: Exchange) -> None:
        if stay.places:
            self._limiter.release(stay.places, f"{id(stay):x}")
        self._settle(stay, exchange)

    def _settle(self, stay: Stay, exchange: Exchange) -> None:
        """Say what was used since the last time: a request may be handed to several engines, one after the other."""
        total = sum(stats.num_prompt_tokens + stats.num_output_tokens for stats in exchange.stats)
        used, stay.num_settled = total - stay.num_settled, total
        for demand in stay.reserved:
            self._limiter.settle(demand, used)
        stay.reserved = []
        if self.turnstiles is not None:
            self.turnstiles.leave(stay, used)


def _bucket_of(principal: Principal) -> str:
    """Return what a principal's use is counted for: an authenticator may name no key, and limit all the same."""
    return principal.key_id or f"tenant:{principal.tenant}"


def _check_verdict(verdict: Verdict) -> None:
    demand = verdict.refused
    if demand is None:
        return
    seconds = max(verdict.retry_after, 0.001)
    headers = (("retry-after", str(ceil(seconds))), ("retry-after-ms", str(ceil(seconds * 1000))))
    who = "address" if demand.bucket.startswith("address:") else "key"
    what = "requests at once" if demand.kind == "concurrency" else f"{demand.kind} a minute"
    message = f"the limit of {demand.limit} {what} for your {who} is reached; retry after {ceil(seconds)} s"
    raise ApiError(429, message, code="rate_limit_exceeded", headers=headers, limit=f"{who}_{demand.kind}")


def _unauthorized(given: bool, *, expired: bool) -> ApiError:
    if expired:
        message = "the API key has expired"
    elif given:
        message = "the API key is not known, or was revoked"
    else:
        message = "an API key is required: send Authorization: Bearer KEY, or x-api-key: KEY"
    return ApiError(401, message, code="invalid_api_key", headers=(("www-authenticate", "Bearer"),))
