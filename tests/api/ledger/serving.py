"""A real server with a ledger, in a process of its own, and the requests that are made of it."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

TIMEOUT = 120.0  # seconds; for what hangs, not for what is slow

SERVE = """
import json, logging, sys
from isotoken.api.engine import Limits
from isotoken.api.ledger.settings import LedgerSettings
from isotoken.api.server import ServerSettings, serve
from isotoken.api.server.features import Features
from isotoken.api.store import StoreSettings
from isotoken.plugins.build import EngineConfig
config, store, ledger, limits = json.loads(sys.argv[1])
logging.basicConfig(stream=sys.stderr, format="%(name)s %(message)s")
logging.getLogger("isotoken.requests").setLevel(logging.INFO)
features = Features(store=StoreSettings(**store), ledger=LedgerSettings(enabled=True, **ledger))
settings = ServerSettings(port=0, features=features, limits=Limits(**limits))
sys.exit(serve(EngineConfig(**config), settings, on_started=lambda url, engine: print(url, flush=True)))
"""


@dataclass
class Server:
    """A server's process."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=TIMEOUT)

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples; 0 where there is none yet."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Ask again and again until something is so."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until every request has ended and all that ended is in the database."""
        self.wait_for(lambda: self.metric("llm_requests_in_flight") == 0)
        self.wait_for(lambda: self.metric("llm_ledger_pending_entries") == 0)

    def kill_engine(self) -> None:
        """End the engine's process, as the system does when memory runs out."""
        for child in psutil.Process(self.process.pid).children():
            child.kill()

    def engine_counts(self) -> dict[str, tuple[int, int, int]]:
        """Return what the engine's own log says of each request: prompt, cached and generated tokens, by its id."""
        counts: dict[str, tuple[int, int, int]] = {}
        for line in self.log.read_text().splitlines():
            name, _, rest = line.partition(" ")
            if name != "isotoken.requests":
                continue
            request_id, _, facts = rest.partition(" ")
            fields = dict(fact.split("=", 1) for fact in facts.split() if "=" in fact)
            ran = fields["queue"] != "-" or fields["generated"] != "0"
            own = tuple(int(fields[name]) * ran for name in ("prompt", "cached", "generated"))
            exchange = request_id.rpartition("-")[0].partition("-")[2]  # without cmpl- and the number of its prompt
            before = counts.get(exchange, (0, 0, 0))
            counts[exchange] = tuple(a + b for a, b in zip(before, own, strict=True))  # type: ignore[assignment]
        return counts


@contextmanager
def serving(
    home: Path, model: Path, *, store: str, config: dict[str, Any] | None = None, limits: Any = None, **ledger: Any
) -> Iterator[Server]:
    """Start a server whose ledger and log are in `home`; it is killed in the end if it still runs."""
    engine = {"model": str(model), "backend": "reference", "num_blocks": 512, **(config or {})}
    ledger = {"folder": str(home / "ledger"), **ledger}
    arguments = json.dumps([engine, {"url": store}, ledger, limits or {}])
    log = home / "server.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert process.stdout is not None
    try:
        found, _, _ = select.select([process.stdout], [], [], TIMEOUT)
        line = process.stdout.readline() if found else ""
        assert line, f"the server did not start: {log.read_text()[-3000:]}"
        server = Server(line.strip(), process, log)
        yield server
        server.client.close()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.stdout.close()


@dataclass
class Seen:
    """What the client knows of one request."""

    id: str
    usage: dict[str, Any] | None = None  # the answer's, or the latest that a stream told
    is_whole: bool = False  # the answer came to its end


class Client:
    """Makes one random request after the other, and leaves some of them early."""

    def __init__(self, server: Server, rng: random.Random, name: str) -> None:
        self._server = server
        self._rng = rng
        self._name = name
        self._http = httpx.Client(base_url=server.url, timeout=TIMEOUT)
        self.seen: list[Seen] = []

    def run(self, num_requests: int) -> None:
        """Make so many requests."""
        for number in range(num_requests):
            seen = Seen(f"{self._name}-{number}")
            self.seen.append(seen)
            path, body = self._request()
            headers = {"x-request-id": seen.id}
            if body.get("stream"):
                self._stream(seen, path, body, headers)
            else:
                self._ask(seen, path, body, headers)
        self._http.close()

    def _request(self) -> tuple[str, dict[str, Any]]:
        rng = self._rng
        text = "one two three " * rng.randint(1, 12)
        body: dict[str, Any] = {
            "max_tokens": rng.randint(1, 40),
            "n": rng.choice([1, 1, 2, 3]),
            "temperature": rng.choice([0, 1]),
            "seed": rng.randrange(1000),
        }
        if rng.random() < 0.2:
            body["stop"] = rng.choice(["e", "th", "\n"])
        if rng.random() < 0.6:
            body |= {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        if rng.random() < 0.4:
            return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
        return "/v1/completions", body | {"prompt": rng.choice([text, [text, "four five"]])}

    def _ask(self, seen: Seen, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        patience = self._rng.choice([TIMEOUT, TIMEOUT, 0.05])
        try:
            answer = self._http.post(path, json=body, headers=headers, timeout=patience)
        except httpx.TimeoutException:
            return
        assert answer.status_code == 200, answer.text
        seen.usage, seen.is_whole = answer.json()["usage"], True

    def _stream(self, seen: Seen, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        most = self._rng.choice([10**6, 10**6, 1, self._rng.randint(2, 20)])
        with self._http.stream("POST", path, json=body, headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            for number, line in enumerate(line for line in answer.iter_lines() if line):
                if line == "data: [DONE]":
                    seen.is_whole = True
                    return
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                seen.usage = event.get("usage") or seen.usage
                if number == most:
                    return
