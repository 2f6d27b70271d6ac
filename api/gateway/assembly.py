"""open_gate: the gate as the settings want it, with what it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from ...plugins.manager import Plugins
from .addresses import Addresses
from .authentication import Authenticator
from .gate import Gate
from .key_admin import KeyAdmin
from .key_ring import KeyRing
from .limiter import Limiter
from .queue_metrics import QueueMetrics
from .salts import Salts
from .settings import GatewaySettings
from .turnstile import QueueBounds
from .turnstiles import Turnstiles

if TYPE_CHECKING:
    from ..store.database import Store


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """What the factories of authenticators and limiters are given."""

    settings: GatewaySettings
    open_store: Callable[[], Awaitable[Store]]  # the database; opened for the first who asks


async def open_gate(
    settings: GatewaySettings, open_store: Callable[[], Awaitable[Store]], plugins: Plugins, registry: CollectorRegistry
) -> Gate | None:
    """Return the gate; None: nothing is asked of one. Its queues show in a registry of metrics.

    Raises PluginError, StoreError and ValueError.
    """
    if not settings.enabled:
        return None
    context = GatewayContext(settings, open_store)
    authenticator: Authenticator | None = None
    keys: KeyAdmin | None = None
    if settings.authenticator:
        authenticator = await plugins.authenticators.get_factory(settings.authenticator)(context)
    if isinstance(authenticator, KeyRing):
        keys = KeyAdmin(await open_store(), authenticator)
    limiter: Limiter = await plugins.limiters.get_factory(settings.limiter)(context)
    turnstiles = _turnstiles(settings)
    if turnstiles is not None:
        registry.register(QueueMetrics(turnstiles))
    return Gate(
        limiter=limiter,
        authenticator=authenticator,
        turnstiles=turnstiles,
        addresses=Addresses(settings.trusted_proxies),
        salts=Salts(settings.cache_groups),
        public_routes=settings.public_routes,
        default_limits=settings.default_limits.limits(),
        address_limits=settings.address_limits.limits(),
        keys=keys,
    )


async def open_key_ring(context: GatewayContext) -> KeyRing:
    """Return the authenticator `keys`."""
    ring = KeyRing(await context.open_store(), refresh_s=context.settings.refresh_s)
    await ring.open()
    return ring


async def open_memory_limiter(context: GatewayContext) -> Limiter:
    """Return the limiter `memory`."""
    from .limiter import MemoryLimiter  # noqa: PLC0415

    return MemoryLimiter()


async def open_redis_limiter(context: GatewayContext) -> Limiter:
    """Return the limiter `redis`. Raises ValueError without its library."""
    try:
        from .redis_limiter import RedisLimiter  # noqa: PLC0415

        settings = context.settings
        return RedisLimiter(
            settings.redis_url.get_secret_value(),
            when_it_fails=settings.when_limiter_fails,
            timeout_s=settings.redis_timeout_s,
        )
    except ImportError as error:
        raise ValueError(f"the limiter redis needs {error.name}: pip install 'isotoken[production]'") from error


def _turnstiles(settings: GatewaySettings) -> Turnstiles | None:
    queue = settings.queue
    if not queue.enabled:
        return None
    bounds = QueueBounds(max_wait_s=queue.max_wait_s, max_waiting=queue.max_waiting, ageing_s=queue.ageing_s)
    return Turnstiles(bounds, queue.max_running)
