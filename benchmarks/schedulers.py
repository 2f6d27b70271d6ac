"""Naive, static and continuous scheduling on the same engine: python -m benchmarks.schedulers

Writes docs/images/schedulers.svg and the table in docs/benchmarks.md. One engine each, on the same backend, weights,
kernels and prefix cache; only the scheduler plugin differs. All 64 requests of W3 arrive at once, the worst case for
waiting and the best for static batches, which need not wait to be filled.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from isotoken.api.bench.workloads import Workload, make_workload, small

from .engines import Isotoken, Run
from .make_model import ensure_model

SCHEDULERS = ("naive", "static", "continuous")
DESCRIPTIONS = {
    "naive": "one request at a time",
    "static": "batches of 32, each run to its last token",
    "continuous": "a request joins and leaves at any step",
}
COLOURS = {"naive": "#9aa3ad", "static": "#5b8db8", "continuous": "#d1603d"}
BEGIN, END = "<!-- schedulers: begin (made by benchmarks/schedulers.py) -->", "<!-- schedulers: end -->"


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds."""

    rate: float  # output tokens a second
    first_token: float  # seconds, mean over the requests
    first_token_p95: float
    latency: float  # seconds to a request's last token, mean over the requests
    finished: list[float]  # seconds at which each request ended, ascending, of the median round

    @classmethod
    def of(cls, runs: list[Run]) -> Figures:
        """Sum up one scheduler's rounds."""
        first = [[times[0] for times in run.token_times] for run in runs]
        last = [[times[-1] for times in run.token_times] for run in runs]
        middle = sorted(range(len(runs)), key=lambda index: runs[index].output_rate)[len(runs) // 2]
        return cls(
            rate=statistics.median(run.output_rate for run in runs),
            first_token=statistics.median(map(statistics.mean, first)),
            first_token_p95=statistics.median(float(np.percentile(times, 95)) for times in first),
            latency=statistics.median(map(statistics.mean, last)),
            finished=sorted(last[middle]),
        )


def compare(engines: dict[str, Isotoken], workloads: list[Workload]) -> dict[str, Figures]:
    """Run every workload on every engine in turn; the first one warms up and is not counted."""
    runs: dict[str, list[Run]] = {name: [] for name in engines}
    for workload in workloads:
        for name, engine in engines.items():
            runs[name].append(engine.run(workload))
    return {name: Figures.of(measured[1:] or measured) for name, measured in runs.items()}


def table(figures: dict[str, Figures]) -> str:
    """Return a markdown table."""
    base = figures["naive"].rate
    lines = [
        "| scheduler | | output tokens/s | against naive | first token, mean | first token, p95 | last token, mean |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in figures.items():
        lines.append(
            f"| `{name}` | {DESCRIPTIONS[name]} | {row.rate:.0f} | {row.rate / base:.2f} x | {row.first_token:.2f} s "
            f"| {row.first_token_p95:.2f} s | {row.latency:.2f} s |"
        )
    return "\n".join(lines)


def draw(figures: dict[str, Figures], path: Path, caption: str) -> None:
    """Draw speed as bars, and how many requests are done by when."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "isotoken", "font.size": 10, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), width_ratios=(1, 1.5), layout="constrained")
    names = list(figures)
    bars = left.bar(names, [figures[name].rate for name in names], color=[COLOURS[name] for name in names], width=0.6)
    left.bar_label(bars, fmt="%.0f", padding=2)
    left.set(title="Output tokens per second", ylim=(0, 1.15 * max(row.rate for row in figures.values())))
    for name in names:
        done = figures[name].finished
        right.step([0, *done], range(len(done) + 1), where="post", color=COLOURS[name], label=name, linewidth=2)
    right.set(title="Requests answered in full", xlabel="seconds since all arrived", xlim=(0, None), ylim=(0, None))
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    fig.supxlabel(caption, fontsize=8, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(fig)


def write_page(page: Path, snippet: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace the part of the page between the marks, or make the page."""
    text = page.read_text() if page.exists() else f"# Benchmarks\n\n{begin}\n{end}\n"
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    head, rest = text.split(begin, 1)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{head}{begin}\n{snippet}\n{end}{rest.split(end, 1)[1]}")


def main(argv: list[str] | None = None) -> int:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="125m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    parser.add_argument("--share", type=int, default=1, help="run only a part of the workload, for a quick look")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    folder = ensure_model(args.size)
    engines = {name: Isotoken(folder, scheduler=name, settings={"num_threads": args.threads}) for name in SCHEDULERS}
    workloads = [make_workload("W3", round_) for round_ in range(args.rounds + 1)]
    if args.share > 1:
        workloads = [small(workload, args.share) for workload in workloads]
    figures = compare(engines, workloads)
    counted = "one round after a warm-up" if args.rounds == 1 else f"median of {args.rounds} interleaved rounds"
    caption = (
        f"torch backend, bfloat16, {args.threads} CPU threads, bench-{args.size}; {len(workloads[0].tasks)} requests "
        f"at once, 16 to 256 tokens in, 8 to 128 out; {counted}"
    )
    draw(figures, args.docs / "images" / "schedulers.svg", caption)
    snippet = f"## Schedulers\n\n{table(figures)}\n\n![Schedulers compared](images/schedulers.svg)\n\n{caption}.\n"
    write_page(args.docs / "benchmarks.md", snippet)
    print(snippet)
    print(json.dumps({name: row.rate for name, row in figures.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
