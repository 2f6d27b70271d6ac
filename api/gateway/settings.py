"""How the gateway is asked to behave. Everything is off by default: whoever reaches the port may ask what they like."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from .principal import KeyLimits

DEFAULT_PUBLIC_ROUTES = ("/health", "/health/live", "/health/ready")


class LimitSettings(BaseModel, extra="forbid"):
    """Limits of a key, an address or a tenant. Left out: none."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1, description="prompt and output together")
    max_concurrency: int | None = Field(default=None, ge=1, description="requests in hand at once")
    max_context: int | None = Field(default=None, ge=1, description="prompt and output tokens of one answer")
    max_output: int | None = Field(default=None, ge=1, description="output tokens of one answer")

    def limits(self) -> KeyLimits:
        """Return them as the gate has them."""
        return KeyLimits(**self.model_dump())


class QueueSettings(BaseModel, extra="forbid"):
    """The fair queue between tenants."""

    enabled: bool = Field(default=False, description="hold requests back and let them go in fair order")
    max_wait_s: float = Field(default=10.0, gt=0, description="a request that would wait longer is refused with 429")
    max_waiting: int = Field(default=1024, ge=0, description="requests that may wait for one model")
    ageing_s: float = Field(default=5.0, gt=0, description="waiting for so long outweighs one step of priority")
    max_running: int = Field(
        default=0, ge=0, description="choices at a model's engine at once; 0: as many as it computes at once"
    )


class GatewaySettings(BaseModel, extra="forbid"):
    """Who may ask, how much and in which turn."""

    authenticator: str = Field(
        default="",
        description="who knows keys: keys (those of `isotoken keys`), or a plugin's name; empty: nobody asks",
    )
    open: bool = Field(default=False, description="serve other machines without keys: whoever reaches the port may ask")
    public_routes: tuple[str, ...] = Field(
        default=DEFAULT_PUBLIC_ROUTES, description="paths that can be read (GET) without a key; * at the end: all below"
    )
    refresh_s: float = Field(default=1.0, gt=0, le=60, description="after so long a revoked key is refused everywhere")
    default_limits: LimitSettings = Field(
        default_factory=LimitSettings, description="of keys that have none of their own"
    )
    address_limits: LimitSettings = Field(default_factory=LimitSettings, description="of each client address")
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="addresses and networks whose X-Forwarded-For is believed"
    )
    limiter: str = Field(
        default="memory", description="who counts: memory (each process for itself), redis, a plugin's"
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="of Redis or Valkey: redis://:PASSWORD@HOST:PORT/NUMBER",
    )
    redis_timeout_s: float = Field(default=0.5, gt=0, description="for one answer of redis, before it counts as gone")
    when_limiter_fails: Literal["local", "refuse"] = Field(
        default="local", description="redis gone: each process counts for itself meanwhile, or all is refused with 503"
    )
    queue: QueueSettings = Field(default_factory=QueueSettings)
    cache_groups: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="tenants that may share prefixes, by a name for the group; * is every tenant"
    )

    @property
    def enabled(self) -> bool:
        """Whether there is anything for a gate to do."""
        limited = self.address_limits != LimitSettings() or self.default_limits != LimitSettings()
        return bool(self.authenticator) or limited or self.queue.enabled

    @model_validator(mode="after")
    def _knows_keys(self) -> GatewaySettings:
        if self.default_limits != LimitSettings() and not self.authenticator:
            raise ValueError("default_limits are of keys, which nobody asks for: set authenticator, or address_limits")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            ip_network(proxy, strict=False)
        return value

    @field_validator("public_routes")
    @classmethod
    def _are_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for route in value:
            if not route.startswith("/"):
                raise ValueError(f"{route!r} is no path: it must begin with /")
        return value
