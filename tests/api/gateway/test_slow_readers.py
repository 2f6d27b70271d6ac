"""A reader that takes its time keeps its answer waiting, and nobody else's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from isotoken.api.engine import AsyncEngine
from isotoken.api.gateway.gate import Gate
from isotoken.api.gateway.limiter import MemoryLimiter
from isotoken.api.gateway.turnstile import QueueBounds
from isotoken.api.gateway.turnstiles import Turnstiles
from isotoken.api.server import ServerSettings
from isotoken.api.server.exchange import Exchange
from isotoken.api.server.generation import Generation, Prompt
from isotoken.api.server.service import Service
from isotoken.api.server.stages import Stages
from isotoken.api.text import SamplingParams


async def nothing() -> Any:
    """The client says nothing more, and stays."""
    await asyncio.Event().wait()


async def submit(service: Service, number: int) -> tuple[Exchange, Generation]:
    assert service.stages.gate is not None
    exchange = Exchange(
        {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "state": {}}, nothing
    )  # type: ignore[arg-type, typeddict-item]
    await service.stages.gate.enter(exchange)
    model = service.choose("", exchange)
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    return exchange, await service.submit(exchange, model, [Prompt([10, 11])], params, request_id=str(number))


def test_a_place_is_free_when_the_engine_is_done_and_not_when_the_reader_is(with_engine: Callable[..., None]) -> None:
    async def body(engine: AsyncEngine) -> None:
        turnstiles = Turnstiles(QueueBounds(), max_running=1)
        service = Service(ServerSettings(), engine, Stages(gate=Gate(limiter=MemoryLimiter(), turnstiles=turnstiles)))
        slow, unread = await submit(service, 0)
        async with asyncio.timeout(30):
            other, read = await submit(service, 1)  # though nothing of the first was read
        for exchange, generation in ((other, read), (slow, unread)):
            (choice,) = await generation.collect()
            assert len(choice.token_ids) == 4
            await generation.aclose()
            exchange.end()
        (turnstile,) = turnstiles.all()
        assert turnstile.num_inside == 0  # each left once

    with_engine(body)
