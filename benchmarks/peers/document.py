"""Write docs/performance.md from saved comparisons: python -m benchmarks.peers.document RUN.json ...

Each file is of `compare --json`: one peer on one model. The tables and the chart come out of these files alone, which
are kept beside the page.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- peers: begin (made by benchmarks/peers/document.py) -->", "<!-- peers: end -->"
WIDTHS = {"float32": "32-bit", "bfloat16": "16-bit", "int8": "8-bit", "int4": "4-bit"}
WORKLOADS = {"W1": "one stream", "W2": "32 at once", "W3": "64 ragged", "W4": "a shared prefix"}
OURS = "#d1603d"
THEIRS = ("#5b8db8", "#9aa3ad", "#c3b59b", "#7d9b84", "#8fb3cf")


@dataclass(frozen=True, slots=True)
class Result:
    """isotoken beside one peer on one workload, medians of the rounds."""

    model: str
    width: str
    workload: str
    peer: str
    ours: float  # tokens a second
    theirs: float
    ratio: float
    spread: tuple[float, float]  # of the rounds' ratios
    first_tokens: tuple[float, float]  # seconds
    way: str
    name: str  # isotoken's settings
    others: float  # CPUs that others kept busy, the most of any round


def read(runs: Iterable[dict[str, Any]]) -> list[Result]:
    """All results of some runs. A later run of the same takes the place of an earlier one."""
    found: dict[tuple[str, ...], Result] = {}
    for run in runs:
        for each in run["comparisons"]:
            rounds = each["rounds"]
            ratios = [one["ours"] / one["theirs"] for one in rounds]
            key = run["model"], each["precision"], each["workload"], each["peer"]
            found[key] = Result(
                *key,
                ours=statistics.median(one["ours"] for one in rounds),
                theirs=statistics.median(one["theirs"] for one in rounds),
                ratio=statistics.median(ratios),
                spread=(min(ratios), max(ratios)),
                first_tokens=tuple(each["first_tokens"]),
                way=each["way"],
                name=each["ours"],
                others=max(one["others"] for one in rounds),
            )
    return list(found.values())


def tables(results: Sequence[Result]) -> str:
    """A table for each model and width: a row for each workload, a column for each peer."""
    parts: list[str] = []
    for model in dict.fromkeys(r.model for r in results):
        for width in (w for w in WIDTHS if any(r.width == w and r.model == model for r in results)):
            some = [r for r in results if r.model == model and r.width == width]
            parts.append(f"### {model}, {WIDTHS[width]} weights\n\n{_table(some)}\n")
    return "\n".join(parts)


def _table(some: Sequence[Result]) -> str:
    peers = list(dict.fromkeys(r.peer for r in some))
    names = " / ".join(dict.fromkeys(r.name for r in some))
    lines = [f"| | isotoken ({names}), tok/s | " + " | ".join(f"{peer}, tok/s" for peer in peers)]
    lines[0] += " | against the best | first token, ms: isotoken / the best |"
    lines.append("|---|" + "--:|" * (len(peers) + 3))
    for workload, words in WORKLOADS.items():
        row = {r.peer: r for r in some if r.workload == workload}
        if row:
            lines.append(f"| {workload} {words} | {_cells(row, peers)} |")
    return "\n".join(lines)


def _cells(row: dict[str, Result], peers: Sequence[str]) -> str:
    best = min(row.values(), key=lambda r: r.ratio)
    quickest = min(row.values(), key=lambda r: r.first_tokens[1])
    cells = [f"**{statistics.median(r.ours for r in row.values()):.0f}**"]
    cells += [f"{row[peer].theirs:.0f}" if peer in row else "" for peer in peers]
    cells.append(f"**{best.ratio:.2f} x** ({best.spread[0]:.2f} to {best.spread[1]:.2f})")
    cells.append(f"{quickest.first_tokens[0] * 1e3:.0f} / {quickest.first_tokens[1] * 1e3:.0f}")
    return " | ".join(cells)


def draw(results: Sequence[Result], path: Path) -> None:
    """One panel for each width of the first model: tokens a second of everybody, by workload."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "isotoken"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    model = results[0].model
    widths = [w for w in WIDTHS if any(r.width == w and r.model == model for r in results)]
    peers = list(dict.fromkeys(r.peer for r in results if r.model == model))
    colours = {"isotoken": OURS} | dict(zip(peers, THEIRS, strict=False))
    fig, axes = plt.subplots(1, len(widths), figsize=(3.6 * len(widths), 3.8), layout="constrained", squeeze=False)
    for ax, width in zip(axes[0], widths, strict=True):
        some = [r for r in results if r.model == model and r.width == width]
        for place, who in enumerate(names := ["isotoken", *peers]):
            at, heights = [], []
            for index, workload in enumerate(WORKLOADS):
                row = [r for r in some if r.workload == workload]
                rates = [r.ours for r in row] if who == "isotoken" else [r.theirs for r in row if r.peer == who]
                if rates:
                    at.append(index + 0.8 * (place - (len(names) - 1) / 2) / len(names))
                    heights.append(statistics.median(rates))
            ax.bar(at, heights, 0.8 / len(names), color=colours[who], label=who)
        ax.set_xticks(range(len(WORKLOADS)), list(WORKLOADS))
        ax.set_title(f"{WIDTHS[width]} weights", loc="left", fontsize=10, fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#e2e0dc", linewidth=0.7)
        ax.set_axisbelow(True)
    axes[0][0].set_ylabel("tokens a second")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


def facts(runs: Sequence[dict[str, Any]], results: Sequence[Result]) -> str:
    """What it was measured on, with what, and how the peers ran."""
    machine = runs[0]["machine"]
    versions = {name: version for run in runs for name, version in run["versions"].items()}
    ways = {f"{r.peer}, {r.workload}, {WIDTHS[r.width]}: {r.way}" for r in results}
    return "\n".join(
        [
            f"{machine['processor']}, {runs[0]['threads']} threads on {machine['CPUs']} CPUs, {machine['memory']}. "
            f"Other processes kept at most {max(r.others for r in results):.1f} CPUs busy in any round"
            f"; {sum(bool(run.get('real_time')) for run in runs)} of {len(runs)} runs were at real-time priority. "
            f"Versions: {', '.join(f'{name} {version}' for name, version in sorted(versions.items()))}.",
            "",
            "<details><summary>How each peer ran, the fastest of its ways</summary>",
            "",
            *(f"- {way}" for way in sorted(ways)),
            "",
            "</details>",
        ]
    )


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.document")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.json")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[2] / "docs")
    given = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in given.runs]
    results = read(runs)
    draw(results, given.docs / "images" / "peers.svg")
    kept = given.docs / "benchmarks"
    kept.mkdir(exist_ok=True)
    for path, run in zip(given.runs, runs, strict=True):
        (kept / f"peers-{path.stem}.json").write_text(json.dumps(run, indent=1) + "\n")
    commands = "\n".join(shlex.join(["python", "-m", "benchmarks.peers", *run["command"]]) for run in runs)
    body = ["```sh", commands, "```", "", "![Tokens a second by workload](images/peers.svg)", ""]
    body += [tables(results), facts(runs, results)]
    page = given.docs / "performance.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    page.write_text(before + BEGIN + "\n" + "\n".join(body) + "\n" + END + rest.split(END)[1])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
