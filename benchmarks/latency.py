"""Latency against throughput, continuous beside adaptive: python -m benchmarks.latency [--rates 2 4 8] [--docs docs]

Requests come at random times at a rate that does not wait for answers (open loop), prompts of 32 to 1,024 tokens among
answers of 16 to 64. One engine for each scheduler, the same requests at the same times, in turns. Tokens are compared
before a figure is printed. With --docs the chart images/adaptive.svg and the section of benchmarks.md are written.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isotoken.api.bench.engines import Run
from isotoken.api.bench.machine import machine_facts
from isotoken.api.bench.measure import turned
from isotoken.api.bench.models import SIZES, ensure_model
from isotoken.api.bench.workloads import VOCAB_SIZE, Task
from isotoken.core.types import DecodeParams, Request, RequestOutput
from isotoken.plugins.build import EngineConfig, build_engine
from isotoken.plugins.manager import Plugins

from .schedulers import write_page

COLOURS = {"continuous": "#d1603d", "adaptive": "#0b63b0"}
BEGIN, END = "<!-- adaptive: begin (made by benchmarks/latency.py) -->", "<!-- adaptive: end -->"
PROMPT, OUTPUT = (32, 1024), (16, 64)  # tokens; prompts are as often short as long, so by their logarithm
HEADER = """| requests/s | scheduler | output tokens/s | between tokens, p50 | p99 | first token, p50 | p99 |
|--:|---|--:|--:|--:|--:|--:|"""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked for, and when it is due (seconds)."""

    tasks: list[Task]
    due: list[float]

    @classmethod
    def draw(cls, rate: float, seconds: float, seed: int, share: int = 1) -> Traffic:
        """Requests of `share` parts of the usual length, `rate` a second on average, one at least."""
        dice = random.Random(f"{rate}/{seed}")
        traffic, at = cls([], []), 0.0
        while at < seconds or not traffic.due:
            length = round(PROMPT[0] * (PROMPT[1] / PROMPT[0]) ** dice.random()) // share
            prompt = [dice.randrange(3, VOCAB_SIZE) for _ in range(max(length, 1))]
            traffic.tasks.append(Task(prompt, max(dice.randint(*OUTPUT) // share, 2)))
            traffic.due.append(at)
            at += dice.expovariate(rate)
        return traffic


class Open:
    """An engine that takes requests when they are due, whatever it is at."""

    def __init__(self, folder: Path, plugins: Plugins, **settings: Any) -> None:
        self._outputs: list[tuple[float, list[RequestOutput]]] = []
        config = EngineConfig(model=str(folder), max_model_len=PROMPT[1] + OUTPUT[1], **settings)
        self._built = build_engine(config, plugins, lambda out: self._outputs.append((time.perf_counter(), out)))
        self.name = f"{self._built.backend}, {self._built.dtype}"

    def run(self, traffic: Traffic) -> Run:
        """Serve it all. Times count from when a request was due."""
        engine, tasks, due, num_added = self._built.engine, traffic.tasks, traffic.due, 0
        self._outputs.clear()
        start = time.perf_counter()
        while num_added < len(due) or engine.has_work:
            while num_added < len(due) and due[num_added] <= time.perf_counter() - start:
                engine.add(_request(str(num_added), tasks[num_added]))
                num_added += 1
            if engine.has_work:
                engine.step()
            else:
                time.sleep(max(due[num_added] - (time.perf_counter() - start), 0.0))
        run = Run(time.perf_counter() - start, [[] for _ in tasks], [[] for _ in tasks], due)
        for at, outputs in self._outputs:
            for output in outputs:
                if output.error:
                    raise RuntimeError(output.error)
                run.tokens[int(output.request_id)] += output.token_ids
                run.token_times[int(output.request_id)] += [at - start] * len(output.token_ids)
        return run

    def close(self) -> None:
        """Give the memory back."""
        self._built.engine.close()


def _request(name: str, task: Task) -> Request:
    params = DecodeParams(max_tokens=task.num_tokens, temperature=0.0, ignore_eos=True)
    return Request(id=name, token_ids=list(task.prompt), num_prompt_tokens=len(task.prompt), params=params)


@dataclass(frozen=True, slots=True)
class Point:
    """A scheduler at one rate: medians over the rounds, times in seconds."""

    scheduler: str
    rate: float  # requests a second, as asked for
    output_rate: float  # tokens a second
    gap50: float
    gap99: float
    first50: float
    first99: float

    @classmethod
    def of(cls, scheduler: str, rate: float, runs: Sequence[Run]) -> Point:
        """Sum the rounds up."""

        def middle(seconds: Sequence[list[float]], share: float) -> float:
            return statistics.median(float(np.percentile(times, share)) for times in seconds)

        gaps, firsts = [run.gaps() for run in runs], [run.first_tokens() for run in runs]
        return cls(
            scheduler,
            rate,
            statistics.median(run.output_rate for run in runs),
            *(middle(gaps, share) for share in (50, 99)),
            *(middle(firsts, share) for share in (50, 99)),
        )

    def row(self) -> str:
        """A line of the table."""
        times = " | ".join(f"{1000 * value:.1f} ms" for value in (self.gap50, self.gap99, self.first50, self.first99))
        return f"| {self.rate:g} | `{self.scheduler}` | {self.output_rate:.0f} | {times} |"


def measure(engines: dict[str, Open], rates: Sequence[float], rounds: int, seconds: float, share: int) -> list[Point]:
    """Run every rate on every engine in turn. Raises ValueError where schedulers give other tokens."""
    for engine in engines.values():
        engine.run(Traffic.draw(max(rates), 0.0, -1, share))  # warms up
    points = []
    for rate in rates:
        runs: dict[str, list[Run]] = {name: [] for name in engines}
        for index in range(rounds):
            traffic = Traffic.draw(rate, seconds, index, share)
            for name in turned(list(engines), index):
                runs[name].append(engines[name].run(traffic))
            if len({repr(runs[name][-1].tokens) for name in engines}) > 1:
                raise ValueError(f"the schedulers' tokens differ at {rate:g} requests a second: no figures")
        points += [Point.of(name, rate, runs[name]) for name in engines]
    return points


def draw(points: Sequence[Point], path: Path, caption: str) -> None:
    """Draw the time between tokens and to the first one over the throughput."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "isotoken", "font.size": 10, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    fig, both = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    titles = {"gap": "Between tokens", "first": "To the first token"}
    for axes, (field, title) in zip(both, titles.items(), strict=True):
        for name, colour in COLOURS.items():
            line = [point for point in points if point.scheduler == name]
            for share, dashes in (("99", "-"), ("50", ":")):
                times = [1000 * getattr(point, field + share) for point in line]
                rates, label = [point.output_rate for point in line], f"{name}, p{share}"
                axes.plot(rates, times, dashes, color=colour, marker="o", markersize=4, label=label)
        axes.set(title=title, xlabel="output tokens per second", ylabel="ms", yscale="log", xlim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    both[0].legend(frameon=False, fontsize=8)
    fig.supxlabel(caption, fontsize=8, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(fig)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", default="125m", choices=SIZES)
    parser.add_argument("--backend", default="native")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[2.0, 5.0, 10.0, 15.0, 20.0], help="requests a second"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="for which requests come, a rate and round")
    parser.add_argument("--share", type=int, default=1, help="only a part of each prompt and answer, for a quick look")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--docs", type=Path, help="folder of benchmarks.md, to write the section and the chart")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    args = arguments(argv)
    folder, plugins = ensure_model(args.size), Plugins.load()
    settings = {name: getattr(args, name) for name in ("backend", "dtype", "quantization")}
    settings |= {"num_threads": args.threads, "memory_fraction": 0.3, "prefix_caching": False}
    engines = {name: Open(folder, plugins, scheduler=name, **settings) for name in COLOURS}
    name = next(iter(engines.values())).name
    try:
        points = measure(engines, args.rates, args.rounds, args.seconds, args.share)
    finally:
        for engine in engines.values():
            engine.close()
    weights = f", {args.quantization}" if args.quantization else ""
    caption = (
        f"{name}{weights}, {args.threads} CPU threads, random-{args.size}; {args.seconds:g} s of requests at "
        f"{', '.join(f'{rate:g}' for rate in args.rates)} a second; medians of {args.rounds} rounds"
    )
    table = "\n".join([HEADER, *(point.row() for point in points)])
    print(f"{table}\n\n{caption}")
    if args.json:
        facts = machine_facts()
        args.json.write_text(json.dumps({"of": caption, "machine": facts, "points": [asdict(p) for p in points]}))
    if args.docs:
        draw(points, args.docs / "images" / "adaptive.svg", caption)
        picture = "![Latency against throughput, continuous and adaptive](images/adaptive.svg)"
        snippet = f"## Latency against throughput\n\n{picture}\n\n{table}\n\n{caption}.\n"
        write_page(args.docs / "benchmarks.md", snippet, BEGIN, END)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
