"""The plugin of the gateway: the authenticator `keys`, and the limiters `memory` and `redis`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...plugins.hookspecs import API_VERSION, Register, hookimpl

if TYPE_CHECKING:
    from .assembly import GatewayContext
    from .authentication import Authenticator
    from .limiter import Limiter

ISOTOKEN_API = API_VERSION

# The factories import what they make, so that listing plugins imports nothing.


async def _keys(context: GatewayContext) -> Authenticator:
    from .assembly import open_key_ring  # noqa: PLC0415

    return await open_key_ring(context)


async def _memory(context: GatewayContext) -> Limiter:
    from .assembly import open_memory_limiter  # noqa: PLC0415

    return await open_memory_limiter(context)


async def _redis(context: GatewayContext) -> Limiter:
    from .assembly import open_redis_limiter  # noqa: PLC0415

    return await open_redis_limiter(context)


@hookimpl
def register_authenticators(register: Register) -> None:
    """Claim keys."""
    register("keys", _keys, description="API keys of `isotoken keys`")


@hookimpl
def register_limiters(register: Register) -> None:
    """Claim memory and redis."""
    register("memory", _memory, description="counts in each process for itself")
    register("redis", _redis, description="counts that processes share, in Redis or Valkey")
