"""Streamed answers: how many tokens a second reach the clients, and what lies between a stream's tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from .client import Stream, ask, stream
from .requests import PATH, WrongAnswer
from .server import Server
from .truth import Truth, completion, http, prompt

_numbers = count()


@dataclass(frozen=True, slots=True)
class Flow:
    """What came over streams."""

    rate: float  # tokens a second while all of them ran
    gaps: np.ndarray  # seconds between what came of a stream, a gap for each event


async def flow(server: Server, truth: Truth, num_streams: int, num_tokens: int, step_s: float) -> Flow:
    """Stream answers of so many tokens, all at once, from steps of `step_s` seconds, and check every one."""
    texts = [prompt(f"stream {next(_numbers)}") for _ in range(num_streams)]
    streams = await _open(server, texts, num_tokens)
    await asyncio.gather(*(each.ended for each in streams))
    events = [_check(truth, text, each, num_tokens) for text, each in zip(texts, streams, strict=True)]
    begin = max(each.arrivals[0][0] for each in streams)
    end = min(each.arrivals[-1][0] for each in streams)
    if end <= begin:
        raise RuntimeError("the streams never ran at the same time: ask for more tokens")
    within = [sum(n for at, n in each.arrivals if begin < at <= end) for each in streams]
    # An event may carry several tokens, or a part of a character none: tokens are told by the usage at the end.
    tokens = sum(n * num_tokens / total for n, total in zip(within, events, strict=True))
    waits = [
        [step_s * silent for silent in silent_tokens(truth.pieces(text, num_tokens), _texts(each))]
        for text, each in zip(texts, streams, strict=True)
    ]
    return Flow(tokens / (end - begin), gaps(streams, begin, end, waits))


def gaps(
    streams: Sequence[Stream], begin: float, end: float, waits: Sequence[Sequence[float]] | None = None
) -> np.ndarray:
    """Return the gaps between events that ended between two times; events that came together have 0 between them.

    `waits`: seconds that lie before each event of each stream whatever the way does, taken off its gap.
    """
    found: list[float] = []
    for number, each in enumerate(streams):
        count = each.arrivals[0][1] if each.arrivals else 0
        for (before, _), (at, events) in zip(each.arrivals, each.arrivals[1:], strict=False):
            wait = sum(waits[number][count : count + events]) if waits is not None else 0.0
            count += events
            if begin < at <= end:
                found.append(at - before - wait)
                found += [0.0] * (events - 1)
    return np.array(found)


def silent_tokens(pieces: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Return how many tokens before or in each event had no text of their own: parts of characters, which none shows.

    `pieces` are the texts that the tokens complete, `texts` those of the events, which may join several.
    """
    found, at = [], 0
    for text in texts:
        silent, size = 0, 0
        while at < len(pieces) and (size < len(text) or (not text and not pieces[at])):
            silent += not pieces[at]
            size += len(pieces[at])
            at += 1
        found.append(silent)
    return found


def _texts(answered: Stream) -> list[str]:
    """Return the text of each event of a stream that was checked."""
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in answered.body().split(b"\n\n")[:-2]]
    return ["".join(choice["text"] for choice in chunk["choices"]) for chunk in chunks]


async def longest_gaps(
    server: Server, truth: Truth, *, num_streams: int, num_tokens: int, num_prompt_tokens: int, seconds: float
) -> tuple[float, float, float]:
    """Return the longest gap with nothing else asked and with long prompts, and how long one took. In seconds."""
    long = truth.long_prompt(num_prompt_tokens)
    texts = [prompt(f"long {next(_numbers)}") for _ in range(num_streams)]
    streams = await _open(server, texts, num_tokens)
    await asyncio.gather(*(each.started for each in streams))
    await asyncio.sleep(1.0)
    quiet = time.perf_counter()
    await asyncio.sleep(seconds)
    busy = time.perf_counter()
    took: list[float] = []
    while time.perf_counter() < busy + seconds:
        asked = time.perf_counter()
        request = http(server.address, PATH, completion(f"{next(_numbers)} {long}", 1))
        status, body = await ask(server.host, server.port, request)
        if status != 200 or json.loads(body)["usage"]["prompt_tokens"] < num_prompt_tokens:
            raise WrongAnswer(f"status {status}: {body[:300]!r}")
        took.append(time.perf_counter() - asked)
    end = time.perf_counter()
    if any(each.ended.done() for each in streams):
        raise RuntimeError("a stream ended while it was measured: ask for more tokens")
    for each in streams:
        each.close()
    return float(gaps(streams, quiet, busy).max()), float(gaps(streams, busy, end).max()), min(took)


async def _open(server: Server, texts: Sequence[str], num_tokens: int) -> list[Stream]:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    requests = [http(server.address, PATH, completion(text, num_tokens, **options)) for text in texts]
    return list(await asyncio.gather(*(stream(server.host, server.port, request) for request in requests)))


def _check(truth: Truth, text: str, answered: Stream, num_tokens: int) -> int:
    """Hold a stream to what it must be, and return how many events with text it had. Raises WrongAnswer."""
    try:
        events = answered.body().split(b"\n\n")
    except ValueError as error:
        raise WrongAnswer(str(error)) from error
    if events[-2:] != [b"data: [DONE]", b""]:
        raise WrongAnswer(f"a stream ended with {events[-2:]!r}")
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]
    got = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    if got != truth.answer(text, num_tokens):
        raise WrongAnswer(f"a stream brought {got[:200]!r}")
    if chunks[-1]["usage"]["completion_tokens"] != num_tokens:
        raise WrongAnswer(f"a stream's usage is {chunks[-1]['usage']}")
    return len(chunks)
