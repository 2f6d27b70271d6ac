"""Streamed answers asked for at times that no answer delays, some of which are refused: how long both take."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import cast

from .client import END_OF_HEAD, END_OF_STREAM, EVENT, LENGTH
from .requests import PATH
from .server import Server
from .truth import completion, http, prompt

RETRY_AFTER_S = 1.0  # what a refusal asks for at least

_numbers = count()


@dataclass(slots=True)
class Outcome:
    """One request. Times in seconds, from when it was due."""

    due: float  # time.perf_counter()
    status: int = 0  # 0: the connection was closed
    first_token: float | None = None
    ended: float | None = None
    body: bytes = b""  # of a refusal


@dataclass(slots=True)
class Outcomes:
    """Those of a load."""

    all: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def accepted(self) -> list[Outcome]:
        """Those that were answered with a whole stream."""
        return [each for each in self.all if each.status == 200 and each.ended is not None]

    @property
    def refused(self) -> list[Outcome]:
        """Those that were turned away."""
        return [each for each in self.all if each.status == 429]

    @property
    def failed(self) -> list[Outcome]:
        """Those of which nothing came that should have."""
        good = {id(each) for each in (*self.accepted, *self.refused)}
        return [each for each in self.all if id(each) not in good]


class Asker(asyncio.Protocol):
    """One connection, kept open: a request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._outcome: Outcome | None = None
        self._on_end: Callable[[Asker], None] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes, outcome: Outcome, on_end: Callable[[Asker], None]) -> None:
        """Send a request; what comes is written to `outcome`."""
        self._outcome, self._on_end, self._buffer = outcome, on_end, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Look at what came: the status, the first event, the end."""
        outcome = self._outcome
        if outcome is None:
            return
        now = time.perf_counter() - outcome.due
        self._buffer += data
        if not outcome.status and END_OF_HEAD in self._buffer:
            outcome.status = int(self._buffer[9:12])
        if outcome.status == 200:
            if outcome.first_token is None and EVENT in self._buffer:
                outcome.first_token = now
            self._buffer = self._buffer[-len(END_OF_STREAM) :] if outcome.first_token is not None else self._buffer
            if self._buffer.endswith(END_OF_STREAM):
                self._end(now)
        elif outcome.status:
            head, _, body = self._buffer.partition(END_OF_HEAD)
            at = head.index(LENGTH) + len(LENGTH)
            if len(body) >= int(head[at:].split(b"\r", 1)[0]):
                outcome.body = body
                self._end(now)

    def connection_lost(self, error: Exception | None) -> None:
        """The server closed it."""
        self._outcome, on_end = None, self._on_end
        if on_end is not None:
            on_end(self)

    @property
    def is_open(self) -> bool:
        """Whether it can be asked again."""
        return not self._transport.is_closing()

    def close(self) -> None:
        """Close it."""
        self._on_end = None
        self._transport.close()

    def _end(self, now: float) -> None:
        assert self._outcome is not None
        self._outcome.ended = now
        self._outcome, on_end, self._on_end = None, self._on_end, None
        if on_end is not None:
            on_end(self)


async def steady(server: Server, num_clients: int, num_tokens: int, seconds: float) -> Outcomes:
    """Ask with so many clients at once, each anew when it has its answer; one that is refused waits a second."""
    outcomes, end = Outcomes(seconds=seconds), time.perf_counter() + seconds

    async def client() -> None:
        while (now := time.perf_counter()) < end:
            outcome = Outcome(now)
            await _ask(server, outcome, num_tokens)
            outcomes.all.append(outcome)
            if outcome.status == 429:
                await asyncio.sleep(RETRY_AFTER_S)

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return outcomes


async def offered(server: Server, rate: float, num_tokens: int, seconds: float, seed: int = 0) -> Outcomes:
    """Ask `rate` times a second on average, at random times."""
    dice, outcomes, idle = random.Random(seed), Outcomes(seconds=seconds), list[Asker]()
    pending = set[Asker]()
    all_ended = asyncio.Event()

    def on_end(asker: Asker) -> None:
        pending.discard(asker)
        if asker.is_open:
            idle.append(asker)
        if not pending:
            all_ended.set()

    start = due = time.perf_counter() + 0.05
    while due < start + seconds:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        while idle and not idle[-1].is_open:  # it was not asked for as long as the server keeps it open
            idle.pop()
        asker = idle.pop() if idle else await _connect(server)
        outcome = Outcome(due)
        outcomes.all.append(outcome)
        pending.add(asker)
        asker.ask(_request(server, num_tokens), outcome, on_end)
        due += dice.expovariate(rate)
    while pending:
        all_ended.clear()
        await asyncio.wait_for(all_ended.wait(), 120)
    for asker in idle:
        asker.close()
    return outcomes


async def _ask(server: Server, outcome: Outcome, num_tokens: int) -> None:
    asker, ended = await _connect(server), asyncio.Event()
    asker.ask(_request(server, num_tokens), outcome, lambda _: ended.set())
    await asyncio.wait_for(ended.wait(), 120)
    asker.close()


async def _connect(server: Server) -> Asker:
    _, asker = await asyncio.get_running_loop().create_connection(Asker, server.host, server.port)
    return asker


def _request(server: Server, num_tokens: int) -> bytes:
    body = completion(prompt(f"overload {next(_numbers)}"), num_tokens, stream=True)
    return http(server.address, PATH, body)
