"""The streaming response: errors before and after the first event, disconnects, and readers that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from isotoken.api.server.sse import EventStream

FOREVER = 60.0


class Client:
    """The other end of an ASGI connection."""

    def __init__(self, *, reads: int = 10**9, leaves_after: int = 10**9) -> None:
        self.sent: list[dict[str, Any]] = []
        self._reads = reads
        self._leaves_after = leaves_after
        self._gone = asyncio.Event()

    async def receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if len(self.sent) > self._reads:
            await asyncio.sleep(FOREVER)
        self.sent.append(message)
        if len(self.sent) > self._leaves_after:
            self._gone.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Source:
    """Events, with a note of whether the generator was closed."""

    def __init__(self, events: int, error: Exception | None = None, *, then_waits: bool = False) -> None:
        self.closed = False
        self._events, self._error, self._then_waits = events, error, then_waits

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for i in range(self._events):
                yield b"%d " % i
                await asyncio.sleep(0)
            if self._then_waits:
                await asyncio.sleep(FOREVER)
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


def stream(source: Source, client: Client, timeout: float = FOREVER) -> None:
    async def run() -> None:
        response = EventStream(source(), error_event=lambda e: f"error {e}".encode(), slow_reader_timeout=timeout)
        async with asyncio.timeout(20):
            await response({}, client.receive, client.send)  # type: ignore[typeddict-item]

    asyncio.run(run())
    assert source.closed


def test_events_then_the_end() -> None:
    client = Client()
    stream(Source(3), client)
    assert client.sent[0]["status"] == 200
    assert client.body == b"0 1 2 "
    assert client.sent[-1]["more_body"] is False


def test_an_error_before_the_first_event_has_no_status_yet() -> None:
    client = Client()
    with pytest.raises(ValueError, match="at once"):
        stream(Source(0, ValueError("at once")), client)
    assert client.sent == []


def test_an_error_after_it_is_an_event() -> None:
    client = Client()
    stream(Source(2, ValueError("late")), client)
    assert client.body == b"0 1 error late"
    assert client.sent[-1]["more_body"] is False


@pytest.mark.parametrize("leaves_after", [0, 3])
def test_a_client_that_leaves_ends_the_generator(leaves_after: int) -> None:
    client = Client(leaves_after=leaves_after)
    stream(Source(5, then_waits=True), client)
    assert all(message.get("more_body", True) for message in client.sent)


def test_a_client_that_leaves_before_the_first_event_ends_the_generator() -> None:
    class Gone(Client):
        async def receive(self) -> Any:
            return {"type": "http.disconnect"}

    client = Gone()
    stream(Source(0, then_waits=True), client)
    assert client.sent == []


def test_a_client_that_reads_nothing_is_given_up() -> None:
    client = Client(reads=4)
    stream(Source(1000), client, timeout=0.05)
    assert len(client.sent) == 5


def test_a_cancelled_stream_stays_cancelled() -> None:
    """When the server itself cancels, nobody takes it for a client that left."""
    source = Source(1, then_waits=True)

    async def run(wait: Callable[[], Any]) -> None:
        client = Client()
        response = EventStream(source(), error_event=lambda error: b"", slow_reader_timeout=FOREVER)
        task = asyncio.create_task(response({}, client.receive, client.send))  # type: ignore[typeddict-item]
        while not client.sent:
            await wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run(lambda: asyncio.sleep(0)))
    assert source.closed
