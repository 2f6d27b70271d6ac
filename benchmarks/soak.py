"""Half an hour at 90% load: does memory or latency creep? python -m benchmarks.soak [--minutes M] [--docs docs]

First the server's capacity is found with clients that ask as fast as they are answered; then requests come at random
times at 90% of that. The memory of both processes is looked at each second, the time to the first token and to the last
is kept for each request. A line is fitted to the medians of nine of ten blocks of the time: its slope, with a 95%
interval, is what the benchmark tells. With --docs the chart images/soak.svg, benchmarks/soak.json and the section of
failures.md are written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop
from isotoken.api.bench.machine import machine_facts
from isotoken.api.routing.intervals import quantile_t
from isotoken.models import BUILTIN, DEFAULT_MODEL

from .load.asker import Outcome, Outcomes, offered, steady
from .load.figures import percentile
from .load.server import Server, serving
from .schedulers import write_page

NUM_TOKENS = 32
CLIENTS = 32
SHARE = 0.9
BLOCKS = 10  # of the time; the first is not looked at, in which memory is still being touched for the first time
KV_BLOCKS = 1024  # of the K/V cache: so few that all are soon in use
BEGIN, END = "<!-- soak: begin (made by benchmarks/soak.py) -->", "<!-- soak: end -->"


@dataclass(frozen=True, slots=True)
class Trend:
    """How a figure went over the time."""

    name: str
    unit: str  # of the figure
    level: float  # its median
    slope: float  # units an hour
    least: float  # of the slope's 95% interval
    most: float


@dataclass(slots=True)
class Memory:
    """What was looked at each second."""

    at: list[float]  # seconds since the start
    api: list[float]  # MB
    engine: list[float]


async def watched(server: Server, work: Any) -> tuple[Outcomes, Memory]:
    """Run a load and look at memory meanwhile."""
    memory, start = Memory([], [], []), time.perf_counter()

    async def look() -> None:
        while True:
            memory.at.append(time.perf_counter() - start)
            memory.api.append(server.api.memory_info().rss / 1e6)
            memory.engine.append(server.engine.memory_info().rss / 1e6)
            await asyncio.sleep(1.0)

    watcher = asyncio.create_task(look())
    try:
        return await work, memory
    finally:
        watcher.cancel()


def trend(name: str, unit: str, at: Sequence[float], values: Sequence[float], seconds: float) -> Trend:
    """Fit a line to the medians of blocks of the time (least squares, Student's t for its slope)."""
    width = seconds / BLOCKS
    blocks: list[list[float]] = [[] for _ in range(BLOCKS)]
    for moment, value in zip(at, values, strict=True):
        blocks[min(int(moment / width), BLOCKS - 1)].append(value)
    points = [(index * width / 3600, percentile(block, 50)) for index, block in enumerate(blocks) if index and block]
    hours, middles = zip(*points, strict=True)
    line = statistics.linear_regression(hours, middles)
    reach = float("inf")
    if (freedom := len(points) - 2) > 0:
        rest = sum((y - line.intercept - line.slope * x) ** 2 for x, y in points)
        spread = sum((x - statistics.fmean(hours)) ** 2 for x in hours)
        reach = quantile_t(freedom) * math.sqrt(rest / freedom / spread)
    middle = percentile(list(values), 50)
    return Trend(name, unit, middle, line.slope, line.slope - reach, line.slope + reach)


def trends(outcomes: Outcomes, memory: Memory) -> list[Trend]:
    """Return the trends of memory and of times."""
    answered = sorted(outcomes.accepted, key=lambda each: each.due)
    start, seconds = answered[0].due, outcomes.seconds
    at = [each.due - start for each in answered]
    firsts = [1000 * (each.first_token or 0.0) for each in answered]
    wholes = [1000 * (each.ended or 0.0) for each in answered]
    return [
        trend("memory of the API's process", "MB", memory.at, memory.api, seconds),
        trend("memory of the engine's process", "MB", memory.at, memory.engine, seconds),
        trend("to the first token", "ms", at, firsts, seconds),
        trend("to the last token", "ms", at, wholes, seconds),
    ]


def table(found: Sequence[Trend]) -> str:
    """Return the trends in Markdown."""
    rows = [
        f"| {each.name} | {each.level:.1f} {each.unit} | {each.slope:+.2f} {each.unit}/h "
        f"| {each.least:+.2f} to {each.most:+.2f} | {'yes' if each.least > 0 else 'no'} |"
        for each in found
    ]
    head = ["| | median | slope | 95% interval | does it grow? |", "|---|--:|--:|--:|---|"]
    return "\n".join([*head, *rows])


def draw(outcomes: Outcomes, memory: Memory, path: Path, caption: str) -> None:
    """Draw memory and times over the time."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "isotoken", "font.size": 10, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    minutes = [moment / 60 for moment in memory.at]
    for values, label, colour in ((memory.api, "API", "#0b63b0"), (memory.engine, "engine", "#d1603d")):
        left.plot(minutes, values, color=colour, linewidth=1, label=label)
    left.set(title="Memory of the processes", xlabel="minutes", ylabel="MB", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    for share, colour in ((50, "#0b63b0"), (99, "#d1603d")):
        points = _by_slice(outcomes, 60, share)
        right.plot([x for x, _ in points], [y for _, y in points], color=colour, linewidth=1, label=f"p{share}")
    right.set(title="To the first token", xlabel="minutes", ylabel="ms", ylim=(0, None))
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    fig.supxlabel(caption, fontsize=8, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(fig)


def _by_slice(outcomes: Outcomes, count: int, share: int) -> list[tuple[float, float]]:
    """Return (minute, percentile in ms) for each of `count` slices of the time."""
    start = min(each.due for each in outcomes.all)
    width = outcomes.seconds / count
    slices: dict[int, list[Outcome]] = {}
    for each in outcomes.accepted:
        slices.setdefault(min(int((each.due - start) / width), count - 1), []).append(each)
    return [
        ((index + 0.5) * width / 60, percentile([1000 * (each.first_token or 0.0) for each in some], share))
        for index, some in sorted(slices.items())
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 where memory grows, or a request was not answered."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--model", type=Path, default=BUILTIN[DEFAULT_MODEL])
    parser.add_argument("--backend", default="native")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--docs", type=Path, help="folder of failures.md, to write the section, the chart and the JSON")
    args = parser.parse_args(argv)
    seconds = 60 * args.minutes

    async def run(server: Server) -> tuple[float, Outcomes, Memory]:
        first = await steady(server, CLIENTS, NUM_TOKENS, max(1.0, min(10.0, seconds / 10)))
        capacity = len(first.accepted) / first.seconds
        print(f"capacity {capacity:.1f} requests/s; {args.minutes:g} minutes at {SHARE:.0%} of it", file=sys.stderr)
        return capacity, *await watched(server, offered(server, SHARE * capacity, NUM_TOKENS, seconds))

    with serving(args.model, backend=args.backend, flags=("--num-blocks", str(KV_BLOCKS))) as server:
        capacity, outcomes, memory = uvloop.run(run(server))
    found = trends(outcomes, memory)
    unanswered = len(outcomes.all) - len(outcomes.accepted)
    caption = (
        f"{args.model.name} on {args.backend}, {args.minutes:g} minutes, {len(outcomes.all):,} requests of "
        f"{NUM_TOKENS} tokens at {SHARE:.0%} of {capacity:.0f} a second, {unanswered} not answered"
    )
    print(f"{table(found)}\n\n{caption}")
    report = {"of": caption, "machine": machine_facts(), "trends": [asdict(each) for each in found]}
    if args.json:
        args.json.write_text(json.dumps({**report, "memory": asdict(memory)}) + "\n")
    if args.docs:
        draw(outcomes, memory, args.docs / "images" / "soak.svg", caption)
        (args.docs / "benchmarks").mkdir(exist_ok=True)
        (args.docs / "benchmarks" / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
        write_page(
            args.docs / "failures.md",
            f"![Memory and latency](images/soak.svg)\n\n{table(found)}\n\n{caption}.",
            BEGIN,
            END,
        )
    return int(unanswered > 0 or any(each.unit == "MB" and each.least > 0 for each in found))


if __name__ == "__main__":
    raise SystemExit(main())
