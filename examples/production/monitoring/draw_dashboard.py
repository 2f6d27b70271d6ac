"""Draw the dashboard as a picture: `python draw_dashboard.py http://127.0.0.1:9090 --output dashboard.png`.

For those who have no Grafana at hand, and for reports: the same queries, evaluated by the same Prometheus.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

DESCRIPTION = Path(__file__).parent / "dashboard.toml"
ACROSS = 4
VARIABLES = {"$__rate_interval": "1m", "$job": ".*", "$model": ".*", "$tenant": ".*"}
UNITS = {
    "s": lambda value: f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s",
    "percentunit": lambda value: f"{value * 100:.3g} %",
    "reqps": lambda value: f"{value:.3g}/s",
    "bytes": lambda value: f"{value / 2**20:.4g} MiB",
    "bool_yes_no": lambda value: "yes" if value else "no",
    "short": lambda value: f"{value:.4g}",
}


def fill(query: str) -> str:
    """Put values for Grafana's variables into a query."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def ask(prometheus: str, query: str, start: float, end: float, step: float) -> list[tuple[dict[str, str], list[Any]]]:
    """Return a query's series over a time: their labels, and (time, value) pairs."""
    parameters = urllib.parse.urlencode({"query": fill(query), "start": start, "end": end, "step": step})
    with urllib.request.urlopen(f"{prometheus.rstrip('/')}/api/v1/query_range?{parameters}", timeout=30) as answer:
        found = json.load(answer)["data"]["result"]
    return [(series["metric"], [(at, float(value)) for at, value in series["values"]]) for series in found]


def name_of(legend: str, labels: dict[str, str]) -> str:
    """Return a series' name as Grafana makes it: {{label}} stands for the label's value."""
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def draw(prometheus: str, minutes: float, *, end: float | None = None) -> Figure:
    """Return the picture of the last minutes: the numbers in a line at the top, the curves below."""
    rows = tomllib.loads(DESCRIPTION.read_text("utf-8"))["row"]
    panels = [panel for row in rows for panel in row["panel"]]
    numbers = [panel for panel in panels if panel["kind"] == "stat"]
    curves = [panel for panel in panels if panel["kind"] != "stat"]
    end = end or time.time()
    lines = -(-len(curves) // ACROSS)
    figure = plt.figure(figsize=(4.6 * ACROSS, 2.5 * lines + 1), layout="constrained")
    top, bottom = cast("Sequence[Any]", figure.subfigures(2, 1, height_ratios=[1, 2.5 * lines]))
    _fill(top.subplots(1, len(numbers)), numbers, prometheus, end, minutes)
    _fill(bottom.subplots(lines, ACROSS), curves, prometheus, end, minutes)
    return figure


def _fill(axes: Any, panels: list[dict[str, Any]], prometheus: str, end: float, minutes: float) -> None:
    start, step = end - minutes * 60, max(1.0, minutes * 60 / 240)
    for ax, panel in zip(axes.flat, panels, strict=False):
        series = [
            (name_of(legend, labels), points)
            for legend, query in panel["queries"]
            for labels, points in ask(prometheus, query, start, end, step)
        ]
        series = [(name, points) for name, points in series if any(not math.isnan(value) for _, value in points)]
        if panel["kind"] == "stat":
            _number(ax, panel, series)
        else:
            _curves(ax, panel, series, end)
        ax.set_title(panel["title"], fontsize=10, loc="left", fontweight="bold")
        if not series:
            ax.text(0.5, 0.5, f"no data: needs {panel.get('needs', '?')}", ha="center", va="center", color="grey")
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")


def _number(ax: Axes, panel: dict[str, Any], series: list[tuple[str, list[Any]]]) -> None:
    ax.axis("off")
    if series:
        value = [value for _, value in series[0][1] if not math.isnan(value)][-1]
        ax.text(0.5, 0.45, UNITS[panel["unit"]](value), ha="center", va="center", fontsize=24, color="tab:green")


def _curves(ax: Axes, panel: dict[str, Any], series: list[tuple[str, list[Any]]], end: float) -> None:
    for name, points in series:
        ax.plot([(at - end) / 60 for at, _ in points], [value for _, value in points], linewidth=1.3, label=name)
    unit = UNITS[panel["unit"]]
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: unit(value)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda minutes, _: f"{minutes:.3g} min"))
    ax.tick_params(labelsize=7)
    ax.grid(alpha=0.3)
    ax.set_ylim(bottom=0)
    if not series:
        ax.set_xticks([])
        ax.set_yticks([])
    else:
        ax.legend(fontsize=6, loc="upper left", ncols=2 if len(series) > 4 else 1, framealpha=0.6)


def main() -> None:
    """Draw and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prometheus", help="its URL")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--output", type=Path, default=Path("dashboard.png"))
    arguments = parser.parse_args()
    draw(arguments.prometheus, arguments.minutes).savefig(arguments.output, dpi=90)


if __name__ == "__main__":
    main()
