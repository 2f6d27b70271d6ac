"""Whole answers: as many as the server gives (closed loop), and how long each takes at a fixed rate (open loop)."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from .client import Connection, ask, connect
from .server import Server
from .truth import TEXT, Truth, completion, http, prompt

NUM_TOKENS = 16
CONNECTIONS = 64
PATH = "/v1/completions"
SCRIPT = Path(__file__).with_name("completions.lua")

_numbers = count()


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load."""

    rate: float  # answers a second
    latencies: list[float]  # seconds, where they were measured one by one
    client: str


class WrongAnswer(Exception):
    """The server did not answer what it must: no speed is told."""


async def check(server: Server, truth: Truth, num_prompts: int = 64) -> None:
    """Hold answers, asked for all at once, to what they must be. Raises WrongAnswer."""
    prompts = [prompt(f"check {next(_numbers)}") for _ in range(num_prompts)]
    answers = await asyncio.gather(*(ask(server.host, server.port, _request(server, text)) for text in prompts))
    for text, (status, body) in zip(prompts, answers, strict=True):
        _hold(truth, text, status, body)


def _hold(truth: Truth, text: str, status: int, body: bytes) -> None:
    if status != 200:
        raise WrongAnswer(f"status {status}: {body[:300]!r}")
    answer = json.loads(body)
    (choice,), usage = answer["choices"], answer["usage"]
    want = truth.answer(text, NUM_TOKENS)
    if choice["text"] != want or choice["finish_reason"] != "length":
        raise WrongAnswer(f"{choice!r} where {want!r} was due")
    if (usage["prompt_tokens"], usage["completion_tokens"]) != (len(truth.ids(text)), NUM_TOKENS):
        raise WrongAnswer(f"usage is {usage}")


def _request(server: Server, text: str) -> bytes:
    return http(server.address, PATH, completion(text, NUM_TOKENS))


# --- closed loop ----------------------------------------------------------------------------------


async def closed_loop(server: Server, truth: Truth, seconds: float) -> Load:
    """Ask anew on each connection as soon as it has its answer: with wrk where that is installed, else from here."""
    if shutil.which("wrk"):
        return await asyncio.to_thread(_wrk, server, seconds)
    return await _from_here(server, seconds)


def _wrk(server: Server, seconds: float) -> Load:
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds:.0f}s"]
    command += ["--timeout", "30s", "--script", str(SCRIPT), server.url + PATH, "--"]
    command += [TEXT, str(NUM_TOKENS), str(next(_numbers))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    errors = re.findall(r"(?:Non-2xx|Socket errors).*", done.stdout)
    if errors:
        raise WrongAnswer(f"wrk: {'; '.join(errors)}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if rate is None:
        raise RuntimeError(f"wrk said: {done.stdout}")
    return Load(float(rate[1]), [], "wrk")


async def _from_here(server: Server, seconds: float) -> Load:
    connections = [await connect(server.host, server.port) for _ in range(CONNECTIONS)]
    end = time.perf_counter() + seconds
    latencies: list[float] = []
    failures: list[str] = []
    open_ones = set(connections)
    done = asyncio.Event()

    def ask_anew(connection: Connection) -> None:
        asked = time.perf_counter()

        def on_answer(status: int, body: bytes) -> None:
            now = time.perf_counter()
            if status != 200:
                failures.append(f"status {status}: {body[:200]!r}")
            if now < end and status == 200:
                latencies.append(now - asked)
                ask_anew(connection)
                return
            open_ones.discard(connection)
            if not open_ones:
                done.set()

        connection.ask(_request(server, prompt(next(_numbers))), on_answer)

    for connection in connections:
        ask_anew(connection)
    await done.wait()
    for connection in connections:
        connection.close()
    if failures:
        raise WrongAnswer(failures[0])
    return Load(len(latencies) / seconds, latencies, "python")


# --- open loop ------------------------------------------------------------------------------------


async def open_loop(server: Server, truth: Truth, rate: float, seconds: float) -> Load:
    """Ask at times that do not depend on answers (Poisson); latencies count from when a request was due."""
    idle = [await connect(server.host, server.port) for _ in range(CONNECTIONS)]
    every = list(idle)
    random_ = random.Random(next(_numbers))
    latencies: list[float] = []
    failures: list[str] = []
    pending = 0
    kept: list[tuple[str, bytes]] = []
    start = due = time.perf_counter() + 0.1
    while due < start + seconds:
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        connection = idle.pop() if idle else await connect(server.host, server.port)
        if connection not in every:
            every.append(connection)
        text = prompt(next(_numbers))
        pending += 1

        def on_answer(status: int, body: bytes, due: float = due, text: str = text, c: Connection = connection) -> None:
            nonlocal pending
            pending -= 1
            latencies.append(time.perf_counter() - due)
            idle.append(c)
            if status != 200:
                failures.append(f"status {status}: {body[:200]!r}")
            elif len(latencies) % 16 == 0:
                kept.append((text, body))

        connection.ask(_request(server, text), on_answer)
        due += random_.expovariate(rate)
    elapsed = time.perf_counter() - start
    while pending:
        await asyncio.sleep(0.01)
    for connection in every:
        connection.close()
    if failures:
        raise WrongAnswer(failures[0])
    for text, body in kept:
        _hold(truth, text, 200, body)
    return Load(len(latencies) / elapsed, latencies, "python")
