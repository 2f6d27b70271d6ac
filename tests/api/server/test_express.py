"""The busy routes answer as the framework's own way would, and their connections spare system calls."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from isotoken.api.server.connection import Departure, JoiningTransport
from isotoken.api.server.disconnect import UntilDisconnect
from isotoken.api.server.errors import ClientGone

COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
CONTENTS: list[tuple[str, Any]] = [
    (COMPLETION, {"prompt": "the quick", "max_tokens": 4, "temperature": 0, "logprobs": 1}),
    (COMPLETION, {"prompt": ["the", "quick"], "max_tokens": 3, "seed": 3, "n": 2}),
    (COMPLETION, {"prompt": "the", "max_tokens": 0, "echo": True, "logprobs": 0}),
    (COMPLETION, {"prompt": "the", "stop": ["e"], "seed": 1, "max_tokens": 40}),
    (COMPLETION, {"prompt": "the", "max_tokens": -1}),
    (COMPLETION, {"prompt": 17}),
    (COMPLETION, {"prompt": "x", "temperature": "hot"}),
    (COMPLETION, {"prompt": "x", "best_of": 3}),
    (COMPLETION, {"prompt": "x", "model": "other"}),
    (COMPLETION, {"prompt": "x", "guided_json": {}, "seed": 7}),
    (COMPLETION, {}),
    (COMPLETION, b"{"),
    (COMPLETION, b""),
    (COMPLETION, b"[1]"),
    (COMPLETION, b"\xff\xfe"),
    (COMPLETION, b"[" * 100_000),
    (CHAT, {"messages": MESSAGES, "max_tokens": 4, "temperature": 0}),
    (CHAT, {"messages": []}),
    (CHAT, {"messages": [{"role": "nobody", "content": "x"}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
]


@pytest.mark.parametrize(("path", "content"), CONTENTS, ids=lambda value: str(value)[:60])
def test_both_ways_answer_alike(server: Any, path: str, content: Any) -> None:
    """With a slash at the end a path goes the framework's way."""
    more = {"content": content} if isinstance(content, bytes) else {"json": content}
    short, long = (server.post(route, headers={"x-request-id": "same"}, **more) for route in (path, f"{path}/"))
    assert short.status_code == long.status_code
    assert short.headers["content-type"] == long.headers["content-type"]
    times = r'"created":\d+'
    assert _without(times, short.text) == _without(times, long.text)
    assert short.headers["x-request-id"] == long.headers["x-request-id"] == "same"


def test_both_ways_stream_alike(server: Any) -> None:
    """How tokens share events is a matter of time; what they say is not."""
    told = []
    for route in (CHAT, f"{CHAT}/"):
        body = {"messages": MESSAGES, "max_tokens": 9, "temperature": 0, "stream": True}
        *events, last = server.events(route, body)
        choices = [choice for event in events for choice in event["choices"]]
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        told.append((text, choices[0], choices[-1], last))
    assert told[0] == told[1]


def _without(pattern: str, text: str) -> str:
    return re.sub(pattern, "", text)


def test_other_methods_go_the_long_way(server: Any) -> None:
    assert server.get(COMPLETION).status_code == 405


def test_a_body_may_come_in_pieces(server: Any) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"prompt": "the qu'
        yield b'ick", "max_tokens": 2, "tempe'
        yield b'rature": 0}'

    whole = server.post(COMPLETION, {"prompt": "the quick", "max_tokens": 2, "temperature": 0}).json()
    assert server.post(COMPLETION, content=pieces()).json()["choices"] == whole["choices"]


def test_a_large_body_in_pieces_is_refused_before_its_end(serve_tiny: Any) -> None:
    server = serve_tiny(limits={"max_body_bytes": 10_000})

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    assert server.post(COMPLETION, content=pieces()).status_code == 413
    assert server.post(COMPLETION, content=b" " * 10_001).status_code == 413
    assert server.post(COMPLETION, {"prompt": "x", "max_tokens": 1}).status_code == 200


def test_answers_come_in_the_order_of_pipelined_requests(server: Any) -> None:
    parts = urlsplit(server.url)
    bodies = [b'{"prompt": "the", "max_tokens": %d, "ignore_eos": true}' % count for count in (5, 1, 3)]
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as client:
        client.sendall(b"".join(head % len(body) + body for body in bodies))
        got = b""
        while got.count(b'"completion_tokens"') < 3:
            got += client.recv(65536)
    counts = [int(piece.split(b",")[0]) for piece in got.split(b'"completion_tokens":')[1:]]
    assert counts == [5, 1, 3]


def test_a_head_without_a_body_is_not_kept(server: Any) -> None:
    assert server.client.head("/health").status_code in (200, 405)


class Written:
    """A transport that notes what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_a_head_goes_out_with_what_follows() -> None:
    async def main() -> None:
        under = Written()
        transport = JoiningTransport(under, asyncio.get_running_loop())  # type: ignore[arg-type]
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        transport.write(b"body")
        transport.write(b"more")
        assert under.writes == [b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]
        transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await asyncio.sleep(0)
        assert under.writes[2:] == [b"HTTP/1.1 204 No Content\r\n\r\n"]
        transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        transport.close()
        assert under.writes[3:] == [b"HTTP/1.1 400 Bad Request\r\n\r\n"]
        assert transport.is_closing()

    asyncio.run(main())


async def never() -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_who_leaves_ends_what_runs_for_them(when: str) -> None:
    async def main() -> None:
        departure = Departure()
        scope: Any = {"extensions": {"isotoken.departure": departure}}
        if when == "before":
            departure.happened()
        else:
            asyncio.get_running_loop().call_soon(departure.happened)
        with pytest.raises(ClientGone), UntilDisconnect(scope, never):
            await asyncio.Event().wait()
        await asyncio.sleep(0)  # nothing of it is left

    asyncio.run(main())


def test_under_another_server_it_is_asked() -> None:
    async def main() -> None:
        messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            await asyncio.sleep(0)
            return next(messages)

        scope: Any = {}
        with pytest.raises(ClientGone), UntilDisconnect(scope, receive):
            await asyncio.Event().wait()
        with UntilDisconnect(scope, never):
            pass
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    asyncio.run(main())


def test_a_cancellation_of_ones_own_is_none_of_the_clients() -> None:
    async def main() -> None:
        departure = Departure()
        scope: Any = {"extensions": {"isotoken.departure": departure}}
        entered = asyncio.Event()

        async def work() -> None:
            with UntilDisconnect(scope, never):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        departure.happened()

    asyncio.run(main())
