"""A server in front of a server: it hands on what is asked and answered, with one bug at a time, chosen by the path.

`http://proxy/BUG/v1/models` is `/v1/models` of the server behind with the bug in it. Answers are kept and given again
for equal requests, so that a run of the suite costs no computing; what comes right after a look at the metrics is asked
anew.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

LONG = 1000  # tokens: such a stream is handed on as it comes


@dataclass
class Ask:
    """What a client asks."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    body: Any = None  # the JSON in it, which a bug may change
    repeats: int = 0  # times that it was asked before

    @property
    def fields(self) -> dict[str, Any]:
        return self.body if isinstance(self.body, dict) else {}

    @property
    def is_stream(self) -> bool:
        return bool(self.fields.get("stream")) or self.path == "/generate_stream"


@dataclass
class Answer:
    """What the server behind answers, which a bug may change."""

    status: int
    headers: dict[str, str]
    content: bytes
    body: Any = None  # the JSON in it
    events: list[Any] | None = None  # of a stream, parsed but for [DONE]

    @classmethod
    def read(cls, response: httpx.Response) -> Answer:
        kept = ("content-type", "x-request-id", "retry-after")
        headers = {name: response.headers[name] for name in kept if name in response.headers}
        answer = cls(response.status_code, headers, response.content)
        if answer.is_stream:
            blocks = [block.removeprefix("data: ") for block in response.text.split("\n\n") if block]
            answer.events = [block if block == "[DONE]" else json.loads(block) for block in blocks]
        elif answer.headers.get("content-type", "").startswith("application/json"):
            answer.body = response.json()
        return answer

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def copy(self) -> Answer:
        """A copy with an id of its own, as another answer would have."""
        told = json.dumps([self.body, self.events])
        parts = self.events[0] if self.events else self.body
        if isinstance(parts, dict) and str(parts.get("id", "")).startswith(("cmpl-", "chatcmpl-")):
            told = told.replace(parts["id"], f"{parts['id'].split('-')[0]}-{uuid.uuid4().hex}")
        body, events = json.loads(told)
        return Answer(self.status, dict(self.headers), self.content, body, events)

    def encode(self) -> bytes:
        if self.events is not None:
            return "".join(f"data: {e if e == '[DONE]' else json.dumps(e)}\n\n" for e in self.events).encode()
        return self.content if self.body is None else json.dumps(self.body).encode()


@dataclass
class Bug:
    """What goes wrong, and which behaviours that breaks."""

    breaks: frozenset[str]
    before: Callable[[Ask], None] | None = None
    after: Callable[[Ask, Answer], None] | None = None
    deaf: bool = False  # to clients that leave
    asked: Counter[str] = field(default_factory=Counter)


class Proxy:
    """The ASGI app."""

    def __init__(self, target: str, bugs: dict[str, Bug]) -> None:
        self._client = httpx.AsyncClient(base_url=target, timeout=60, limits=httpx.Limits(max_connections=None))
        self._bugs = bugs
        self._kept: dict[str, Answer] = {}
        self._anew = False
        self._deaf: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._deaf:
            task.cancel()
        await asyncio.gather(*self._deaf, return_exceptions=True)
        await self._client.aclose()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            _, name, rest = scope["path"].split("/", 2)
            await self._serve(self._bugs[name], await _read(scope, receive, "/" + rest), receive, send)

    async def _serve(self, bug: Bug, ask: Ask, receive: Any, send: Any) -> None:
        key = f"{ask.method} {ask.path} {ask.content!r}"
        ask.repeats, bug.asked[key] = bug.asked[key], bug.asked[key] + 1
        if bug.before is not None and ask.body is not None:
            bug.before(ask)
            ask.content = json.dumps(ask.body).encode()
        if ask.is_stream and int(ask.fields.get("max_tokens") or 0) > LONG:
            await self._hand_on(bug, ask, receive, send)
            return
        answer = (await self._ask(ask)).copy()
        if bug.after is not None:
            bug.after(ask, answer)
        await _reply(send, answer)

    async def _ask(self, ask: Ask) -> Answer:
        key = f"{ask.path} {ask.content!r}"
        if ask.method == "POST" and key in self._kept and not self._anew:
            return self._kept[key]
        self._anew = ask.path == "/metrics"
        headers = {k: v for k, v in ask.headers.items() if k in ("content-type", "x-request-id", "authorization")}
        response = await self._client.request(ask.method, ask.path, content=ask.content, headers=headers)
        answer = Answer.read(response)
        if ask.method == "POST":
            self._kept[key] = answer
        return answer

    async def _hand_on(self, bug: Bug, ask: Ask, receive: Any, send: Any) -> None:
        """Hand a long stream on as it comes, until the client leaves."""

        async def stream() -> None:
            async with self._client.stream("POST", ask.path, json=ask.body) as response:
                head = {"type": "http.response.start", "status": response.status_code, "headers": []}
                await send(head | {"headers": [(b"content-type", response.headers["content-type"].encode())]})
                async for chunk in response.aiter_bytes():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        task = asyncio.create_task(stream())
        left = asyncio.create_task(receive())
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if bug.deaf:
            self._deaf.add(task)
            await asyncio.wait((task,))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _read(scope: Any, receive: Any, path: str) -> Ask:
    content, more = b"", True
    while more:
        message = await receive()
        content, more = content + message.get("body", b""), message.get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    ask = Ask(scope["method"], path, headers, content)
    try:
        ask.body = json.loads(content) if content else None
    except ValueError:
        ask.body = None
    return ask


async def _reply(send: Any, answer: Answer) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.encode()})


@contextmanager
def proxied(target: str, bugs: dict[str, Bug]) -> Iterator[str]:
    """Run a proxy in a thread; gives its URL."""
    proxy = Proxy(target, bugs)
    server = uvicorn.Server(uvicorn.Config(proxy, log_level="error", lifespan="off"))
    # Named as TCP, for asyncio sends small packets at once on such sockets only.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))

    async def serve() -> None:
        await server.serve([listening])
        await proxy.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
