"""What more load than a server can carry does to it: python -m benchmarks.overload [--seconds S] [--docs docs]

A server with a fair queue, around the backend `null` whose steps take as long as a model's, so that it can answer so
many requests a second and no more. First at its bound: as many clients as it has places, those in the queue included,
each asking anew when it has its answer. Then requests at random times, up to ten times what it can answer; at last the
same where nobody may wait. Told are the time to the first token of those that were accepted, the time to a refusal, and
the memory of the server's process.
With --docs the chart images/overload.svg, benchmarks/overload.json and the section of tenants.md are written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import uvloop
from isotoken.api.bench.machine import machine_facts, versions
from isotoken.models import BUILTIN, DEFAULT_MODEL

from .load.asker import Outcomes, offered, steady
from .load.server import Server, serving
from .overload_report import MAX_RATIO, MAX_REFUSAL_MS, Load, draw, line, table
from .schedulers import write_page

STEP_MS = 10.0
NUM_TOKENS = 32
PLACES = 16  # at the engine
MAX_WAIT_S = 1.0
FACTORS = (0.5, 1.0, 2.0, 5.0, 10.0)
MAX_GROWTH_MB = 16.0  # what is to be kept to, beside those of the report
ALONE, BOUND = "places full, no queue", "queue at its bound"
BEGIN, END = "<!-- overload: begin (made by benchmarks/overload.py) -->", "<!-- overload: end -->"


async def watched(server: Server, work: Any) -> tuple[Outcomes, list[float]]:
    """Run a load and look at the memory of the API's process meanwhile."""
    memory: list[float] = []

    async def look(process: psutil.Process) -> None:
        while True:
            memory.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(0.5)

    watcher = asyncio.create_task(look(server.api))
    try:
        return await work, memory
    finally:
        watcher.cancel()


def measure(
    model: Path, seconds: float, factors: Sequence[float] = FACTORS, *, max_wait_s: float = MAX_WAIT_S
) -> list[Load]:
    """Run every load: without a queue and at its bound, then at random times, at last so where nobody may wait."""
    loads: list[Load] = []

    async def run(name: str, server: Server, work: Any) -> Load:
        load = Load.of(name, *await watched(server, work))
        print(line(load), file=sys.stderr, flush=True)
        loads.append(load)
        return load

    async def with_queue(server: Server) -> None:
        await steady(server, PLACES, NUM_TOKENS, min(2.0, seconds))  # warms up
        alone = await run(ALONE, server, steady(server, PLACES, NUM_TOKENS, seconds))
        num_waiting = round(0.8 * alone.accepted * max_wait_s)  # who find a place in the queue
        await run(BOUND, server, steady(server, PLACES + num_waiting, NUM_TOKENS, seconds))
        for factor in factors:
            longer = seconds * (3 if factor == max(factors) else 1)  # for the memory
            await run(f"{factor:g} times", server, offered(server, factor * alone.accepted, NUM_TOKENS, longer))
            await asyncio.sleep(max_wait_s)

    async def without(server: Server) -> None:
        await steady(server, PLACES, NUM_TOKENS, min(2.0, seconds))
        rate = max(factors) * loads[0].accepted
        await run(f"{max(factors):g} times, no queue", server, offered(server, rate, NUM_TOKENS, seconds))

    with _server(model, max_wait_s, 1024) as server:
        uvloop.run(with_queue(server))
    with _server(model, max_wait_s, 0) as server:
        uvloop.run(without(server))
    return loads


def _server(model: Path, max_wait_s: float, max_waiting: int) -> AbstractContextManager[Server]:
    settings = {"enabled": "true", "max_wait_s": f"{max_wait_s:g}", "max_waiting": str(max_waiting)}
    flags = [part for name, value in settings.items() for part in ("--set", f"gateway.queue.{name}={value}")]
    return serving(model, step_ms=STEP_MS, flags=("--max-num-seqs", str(PLACES), *flags))


def verdicts(loads: Sequence[Load]) -> dict[str, bool]:
    """Say what was kept to at the largest load, with the queue and without."""
    alone, bound, *_, most, unqueued = loads
    ratio = most.first_token_p99 / bound.first_token_p99
    strict = unqueued.first_token_p99 / alone.first_token_p99
    refusal = max(most.refusal_p99 or 0.0, unqueued.refusal_p99 or 0.0)
    return {
        f"p99 first token {ratio:.2f} times that at the queue's bound (at most {MAX_RATIO})": ratio <= MAX_RATIO,
        f"with no queue, {strict:.2f} times that of full places alone (at most {MAX_RATIO})": strict <= MAX_RATIO,
        f"p99 refusal {refusal:.1f} ms (below {MAX_REFUSAL_MS:g})": refusal < MAX_REFUSAL_MS,
        f"memory grew by {most.growth_mb:.1f} MB (below {MAX_GROWTH_MB:g})": most.growth_mb < MAX_GROWTH_MB,
        f"{most.failed + unqueued.failed} requests neither answered nor refused (none)": most.failed + unqueued.failed
        == 0,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 where something was not kept to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load; three times as long of the largest")
    parser.add_argument("--factors", type=float, nargs="+", default=list(FACTORS), help="times what can be answered")
    parser.add_argument("--max-wait", type=float, default=MAX_WAIT_S, help="the queue's bound, seconds")
    parser.add_argument("--model", type=Path, default=BUILTIN[DEFAULT_MODEL], help="whose tokenizer is used")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--docs", type=Path, help="folder of tenants.md, to write the section, the chart and the JSON")
    args = parser.parse_args(argv)
    started = time.time()
    loads = measure(args.model, args.seconds, sorted(args.factors), max_wait_s=args.max_wait)
    kept = verdicts(loads)
    report = {
        "command": shlex.join([Path(sys.executable).name, "-m", "benchmarks.overload", *(argv or sys.argv[1:])]),
        "started": datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "real_time": os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR),
        "machine": machine_facts(),
        "versions": versions(),
        "loads": [asdict(load) for load in loads],
        "verdicts": kept,
    }
    print(table(loads), "", *(f"{'yes' if good else 'NO '}  {what}" for what, good in kept.items()), sep="\n")
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.docs is not None:
        _write(args.docs, report, loads, kept, args.max_wait)
    return int(not all(kept.values()))


def _write(docs: Path, report: dict[str, Any], loads: Sequence[Load], kept: dict[str, bool], max_wait_s: float) -> None:
    caption = (
        f"backend null, a step every {STEP_MS:g} ms, {PLACES} places, answers of {NUM_TOKENS} tokens, "
        f"a queue of {max_wait_s:g} s; client and server on one machine, {report['started']}"
        f"{', at real-time priority beside other work' if report['real_time'] else ''}"
    )
    (docs / "benchmarks").mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks" / "overload.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(loads, docs / "images" / "overload.svg", caption)
    lines = "\n".join(f"- {what}: {'kept' if good else 'not kept'}" for what, good in kept.items())
    picture = "![Time to the first token, to a refusal, and memory under overload](images/overload.svg)"
    command = f"`{report['command']}`"
    snippet = f"{table(loads)}\n\n{picture}\n\nAt the largest load:\n\n{lines}\n\nMade by {command}: {caption}."
    write_page(docs / "tenants.md", snippet, BEGIN, END)


if __name__ == "__main__":
    raise SystemExit(main())
