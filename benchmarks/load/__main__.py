"""Measure what the way in carries: python -m benchmarks.load [--rounds N] [--seconds S] [--only NAME] [--json FILE]

A server is started as a user would start it, around the backend `null`, which answers at once: what is measured is
HTTP, tokenising, the engine's process with scheduler and KV cache, and detokenising, client and server on one machine.
Answers are checked before anything is timed, and those of the streams while it is.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from isotoken.api.bench.machine import Others, machine_facts, versions
from isotoken.models import BUILTIN, DEFAULT_MODEL

from .figures import Figure, Measurement, percentile, plain
from .requests import NUM_TOKENS, check, closed_loop, open_loop
from .server import Server, long_context_model, serving
from .streams import flow, longest_gaps
from .truth import Truth

STEP_MS = 10.0
STREAMS = 256
RATE = 500.0
LONG_PROMPT = 200_000
MS, US = 1e3, 1e6

Round = Callable[[Server, Truth, float], Coroutine[Any, Any, list[float]]]


def requests() -> tuple[Measurement, Round]:
    """Whole answers, as many as there can be."""
    measurement = Measurement(
        "requests",
        f"whole answers of {NUM_TOKENS} tokens, each of 64 connections asks anew when it has its answer",
        [
            Figure("answers", "a second", 3000, "more"),
            Figure("CPU of the API's process", "us an answer"),
            Figure("CPU of the engine's process", "us an answer"),
        ],
    )

    async def run(server: Server, truth: Truth, seconds: float) -> list[float]:
        before = server.cpu_time()
        load = await closed_loop(server, truth, seconds)
        used, num_answers = server.cpu_time() - before, load.rate * seconds
        return [load.rate, used.api / num_answers * US, used.engine / num_answers * US]

    return measurement, run


def streams() -> tuple[Measurement, Round]:
    """Streamed answers at the pace of a model whose step takes 10 ms."""
    measurement = Measurement(
        "streams",
        f"{STREAMS} streams at once, a step every {STEP_MS:g} ms; a step that brings a stream but a part of a "
        "character shows no event, and is taken off the gap it leaves",
        [
            Figure("tokens", "a second", 25_000, "more"),
            Figure("gap between a stream's tokens, p50", "ms"),
            Figure("gap between a stream's tokens, p99", "ms", 20),
            Figure("CPU of the API's process", "us a token"),
            Figure("CPU of the engine's process", "us a token"),
        ],
    )

    async def run(server: Server, truth: Truth, seconds: float) -> list[float]:
        num_tokens = min(max(int(seconds * 1000 / STEP_MS), 300), 1800)
        before = server.cpu_time()
        found = await flow(server, truth, STREAMS, num_tokens, STEP_MS / 1000)
        used, all_tokens = server.cpu_time() - before, STREAMS * num_tokens
        gaps = [percentile(found.gaps, p) * MS for p in (50, 99)]
        return [found.rate, *gaps, used.api / all_tokens * US, used.engine / all_tokens * US]

    return measurement, run


def latency() -> tuple[Measurement, Round]:
    """How long whole answers take at a fixed rate."""
    measurement = Measurement(
        "latency",
        f"whole answers of {NUM_TOKENS} tokens, asked for at random times, {RATE:g} a second on average",
        [
            Figure("answers", "a second"),
            Figure("time to the answer, p50", "ms"),
            Figure("time to the answer, p99", "ms", 10),
        ],
    )

    async def run(server: Server, truth: Truth, seconds: float) -> list[float]:
        load = await open_loop(server, truth, RATE, seconds)
        return [load.rate, *(percentile(load.latencies, p) * MS for p in (50, 99))]

    return measurement, run


def long_prompt() -> tuple[Measurement, Round]:
    """What a very long prompt does to the streams beside it."""
    measurement = Measurement(
        "long prompt",
        f"32 streams, a step every {STEP_MS:g} ms, while prompts of {LONG_PROMPT:,} tokens are tokenised and computed",
        [
            Figure("longest gap of a stream without", "ms"),
            Figure("longest gap of a stream meanwhile", "ms"),
            Figure("longest stall: by how much that exceeds a step", "ms", 20),
            Figure("answer to a long prompt", "s"),
        ],
    )

    async def run(server: Server, truth: Truth, seconds: float) -> list[float]:
        num_tokens = int((2 * seconds + 30) * 1000 / STEP_MS)
        without, meanwhile, took = await longest_gaps(
            server, truth, num_streams=32, num_tokens=num_tokens, num_prompt_tokens=LONG_PROMPT, seconds=seconds
        )
        return [without * MS, meanwhile * MS, meanwhile * MS - STEP_MS, took]

    return measurement, run


LOADS: dict[str, tuple[Callable[[], tuple[Measurement, Round]], float]] = {  # with the pace of the backend's steps
    "requests": (requests, 0.0),
    "streams": (streams, STEP_MS),
    "latency": (latency, 0.0),
    "long-prompt": (long_prompt, STEP_MS),
}


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write. Returns 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement in each round")
    parser.add_argument("--only", action="append", choices=list(LOADS), help="repeatable; none: all")
    parser.add_argument("--model", type=Path, default=BUILTIN[DEFAULT_MODEL], help="whose tokenizer is used")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--docs", type=Path, help="write the section of this folder's benchmarks.md")
    args = parser.parse_args(argv)
    started, others = datetime.now(UTC), _busy_elsewhere()
    with tempfile.TemporaryDirectory() as folder:
        measurements = [
            _measure(name, args.model, Path(folder), args.rounds, args.seconds) for name in args.only or LOADS
        ]
    report = {
        "command": shlex.join([Path(sys.executable).name, "-m", "benchmarks.load", *(argv or sys.argv[1:])]),
        "started": started.strftime("%Y-%m-%d %H:%M UTC"),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "machine": machine_facts(),
        "versions": versions(),
        "cpus_busy_elsewhere": [round(cpus, 2) for cpus in (others, _busy_elsewhere())],  # before and after
        "measurements": [asdict(measurement) for measurement in measurements],
    }
    print(plain(measurements))
    print("CPUs that other processes kept busy before and after:", *report["cpus_busy_elsewhere"])
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.docs is not None:
        from .document import write  # noqa: PLC0415  (draws on what needs more libraries)

        write(args.docs, report, measurements)
    return int(any(f.reached is False for m in measurements for f in m.figures))


def _measure(name: str, model: Path, folder: Path, rounds: int, seconds: float) -> Measurement:
    make, step_ms = LOADS[name]
    measurement, run = make()
    flags: tuple[str, ...] = ()
    if name == "long-prompt":
        model = long_context_model(model, folder / "long", 2 * LONG_PROMPT)
        flags = ("--max-num-batched-tokens", "2048")
    truth = Truth(model)
    with serving(model, step_ms=step_ms, flags=flags) as server:
        uvloop.run(check(server, truth))
        for number in range(rounds + 1):
            values = uvloop.run(run(server, truth, seconds if number else min(seconds, 2.0)))
            if number:  # the first warms up
                measurement.add(values)
            print(f"{name}: {number} of {rounds}", file=sys.stderr, flush=True)
    return measurement


def _busy_elsewhere(seconds: float = 2.0) -> float:
    """Return how many CPUs others keep busy while this does nothing."""
    with Others() as others:
        time.sleep(seconds)
    return others.cpus


if __name__ == "__main__":
    raise SystemExit(main())
