"""Server: the server under test as its clients reach it, and what was found out about it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import httpx
import pytest

from .routes import Route
from .settings import Settings
from .stream import Stream

MAX_TOGETHER = 32  # requests at once
_SHOWN = 400  # characters of an answer in a failure's report

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: httpx.Headers
    text: str

    @property
    def body(self) -> Any:
        """The JSON in it; None where there is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a server is and offers, found out before the tests."""

    model: str
    card: dict[str, Any]  # the model's entry in the list
    owned_by: str
    is_isotoken: bool
    max_model_len: int | None
    refusals: dict[str, str]  # route's name -> why it cannot be tested
    keeps_going: bool  # ignore_eos is obeyed
    near_tie: float  # log-probabilities this close may fall either way in another batch


class Server:
    """Asks, and remembers what was last asked for the report of a failure."""

    def __init__(self, settings: Settings) -> None:
        headers = {"authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._client = httpx.Client(
            base_url=settings.url,
            headers=headers,
            timeout=httpx.Timeout(settings.timeout, connect=10, pool=None),
            limits=httpx.Limits(max_connections=2 * MAX_TOGETHER),
            follow_redirects=True,
        )
        self.settings = settings
        self.exchanges: deque[list[str]] = deque(maxlen=4)  # each a request and what came of it
        self.facts: Facts  # set once they are known
        self.compared = 0  # texts, in the running test
        self.near_ties = 0  # of those, texts that parted at one

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    # --- plain HTTP -----------------------------------------------------------------------------

    def get(self, path: str, **more: Any) -> Reply:
        """Get a path."""
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        """Post a JSON body, or raw content=."""
        return self.request("POST", path, **({"json": body} if body is not None else {}), **more)

    def request(self, method: str, path: str, **more: Any) -> Reply:
        """Ask for something and read the whole answer."""
        with self._told(method, path, more) as note:
            response = self._client.request(method, path, **more)
            reply = Reply(response.status_code, response.headers, response.content.decode(errors="replace"))
            note.append(f"  -> {reply.status} {reply.text[:_SHOWN]}")
        return reply

    @contextmanager
    def opened(self, path: str, body: dict[str, Any]) -> Iterator[tuple[httpx.Response, list[str]]]:
        """Post a body and open the answer without reading it; leaving closes the connection.

        Yields the answer, and the note of it that a failure's report will show.
        """
        with (
            self._told("POST", path, {"json": body}) as note,
            self._client.stream("POST", path, json=body) as response,
        ):
            yield response, note

    def events(self, path: str, body: dict[str, Any]) -> Stream:
        """Post a body and read the stream that comes. Fails where it is none, or brings an error."""
        with self.opened(path, body) as (response, note):
            if response.status_code != 200:
                pytest.fail(f"POST {path}: {response.status_code} {response.read().decode(errors='replace')}")
            stream = Stream(response.headers.get("content-type", "")).read(response.iter_bytes())
            note.append(f"  -> a stream of {len(stream.events)} events")
            ends = (*stream.events[:2], *stream.events[-2:])
            note += [f"     {json.dumps(event, ensure_ascii=False)[:_SHOWN]}" for event in ends]
        for event in stream.events:
            assert not event.get("error"), f"the stream broke off: {event}"
        return stream

    @contextmanager
    def _told(self, method: str, path: str, more: dict[str, Any]) -> Iterator[list[str]]:
        note = [_as_curl(method, f"{self.settings.url}{path}", more)]
        self.exchanges.append(note)
        try:
            yield note
        except httpx.HTTPError as error:
            pytest.fail(f"{method} {path}: {type(error).__name__}: {error}")

    # --- what clients of the OpenAI API do ------------------------------------------------------

    def whole(self, route: Route, prompt: Any, **fields: Any) -> dict[str, Any]:
        """Ask for a whole answer and return its body."""
        reply = self.post(route.path, self.body(route, prompt, fields))
        assert reply.status == 200, f"POST {route.path}: {reply.status} {reply.text}"
        assert isinstance(reply.body, dict), f"POST {route.path}: no JSON object came: {reply.text[:_SHOWN]}"
        return reply.body

    def streamed(self, route: Route, prompt: Any, **fields: Any) -> Stream:
        """Ask for a stream and read it."""
        return self.events(route.path, self.body(route, prompt, {**fields, "stream": True}))

    def body(self, route: Route, prompt: Any, fields: dict[str, Any]) -> dict[str, Any]:
        """Write a request's body: greedy, 16 tokens, unless the fields say otherwise."""
        return route.body(prompt, {"model": self.facts.model, "max_tokens": 16, "temperature": 0} | fields)

    @property
    def on(self) -> dict[str, Any]:
        """Fields that keep an answer from ending by itself, where the server has such."""
        return {"ignore_eos": True} if self.facts.keeps_going else {}

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make calls at once."""
        with ThreadPoolExecutor(MAX_TOGETHER) as pool:
            return [future.result() for future in [pool.submit(call) for call in calls]]

    # --- what may be missing --------------------------------------------------------------------

    def need(self, route: Route) -> None:
        """Go on only where a route can be tested."""
        if route.name in self.facts.refusals:
            self.absent(self.facts.refusals[route.name])

    def absent(self, reason: str) -> NoReturn:
        """End the test: the server does not offer this."""
        if self.settings.strict:
            pytest.fail(f"{reason} (which --strict does not excuse)")
        pytest.skip(reason)


def _as_curl(method: str, url: str, more: dict[str, Any]) -> str:
    """Write a request as a line to paste; the key stays out of it."""
    words = ["curl", "" if method == "GET" else f"-X {method}", url]
    if "json" in more:
        data = json.dumps(more["json"], ensure_ascii=False).replace("'", "'\\''")
        words += ["-H 'content-type: application/json'", f"-d '{data[:2000]}'"]
    elif "content" in more:
        words.append(f"--data-binary {more['content'][:200]!r}")
    return " ".join(filter(None, words))
