"""A client: requests to the server with the standard library, and a small load of many at once."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

QUESTION = "What is the capital of Japan?"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: dict[str, str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody with a key."""

    url: str
    key: str = ""

    def post(self, path: str, body: Any = None) -> Answer:
        """Send a request and return its answer, whatever its status."""
        started = time.monotonic()
        request = self._request(path, body)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                content, status, headers = response.read(), response.status, response.headers
        except urllib.error.HTTPError as error:
            content, status, headers = error.read(), error.code, error.headers
        names = {name.lower(): value for name, value in headers.items()}
        value = json.loads(content) if "json" in names.get("content-type", "") else content.decode()
        return Answer(status, value, names, time.monotonic() - started)

    get = post

    def chat(self, text: str, **more: Any) -> Answer:
        """Ask a question."""
        message = {"role": "user", "content": text}
        return self.post("/v1/chat/completions", {"messages": [message], "temperature": 0, "max_tokens": 24, **more})

    def stream(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a streamed completion."""
        with urllib.request.urlopen(
            self._request("/v1/completions", {**body, "stream": True}), timeout=120
        ) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])

    def _request(self, path: str, body: Any) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(self.url + path, data, headers)


@dataclass(slots=True)
class Load:
    """What many requests came to."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, *statuses: int) -> int:
        """Return how many had one of these statuses."""
        return sum(answer.status in statuses for answer in self.answers)

    def latency(self, share: float) -> float:
        """Return a quantile of the seconds that good answers took."""
        found = sorted(answer.seconds for answer in self.answers if answer.status == 200)
        return found[min(len(found) - 1, int(share * len(found)))] if found else float("nan")


def load(ask: Callable[[int], Answer], *, clients: int, seconds: float) -> Load:
    """Let so many clients ask, each again as soon as it has its answer, for so long."""
    found, started = Load(), time.monotonic()

    def work(first: int) -> None:
        number = first
        while time.monotonic() - started < seconds:
            found.answers.append(ask(number))
            number += clients

    threads = [threading.Thread(target=work, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.seconds = time.monotonic() - started
    return found


def until(read: Callable[[], int], wanted: int, seconds: float = 10.0) -> int:
    """Read again and again until it is as wanted, or the time is over; return the last."""
    end = time.monotonic() + seconds
    while (found := read()) != wanted and time.monotonic() < end:
        time.sleep(0.3)
    return found
