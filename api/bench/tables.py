"""The comparison as tables, for a terminal and for the page alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .compare import Change
from .results import Point, Report, Result
from .workloads import DESCRIPTIONS

FIGURES = {
    "decode": "tokens a second after the first",
    "output": "output tokens a second, prefill included",
    "prompt": "prompt tokens a second",
}

STREAMS = "each stream asks anew when it has its answer: 16 to 256 tokens in, 8 to 128 out"
OVER = "> 100%"
BUSY_CPUS = 0.3  # kept by other processes: beyond that figures are no good
FEW = "There are two requests a stream in each round, eight at least: of so few the p99 is about the slowest"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text. Columns after the first `num_left` are figures and stand to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_left: int = 1
    note: str = ""


def workload_tables(results: Sequence[Result]) -> list[Table]:
    """One for each workload. A figure stands only where the tokens are right."""
    tables = []
    for name, group in groupby(results, key=lambda result: result.workload):
        found = list(group)
        columns = ("engine", "tokens", "tok/s", "rounds", "against the first", "of the roof", "first token")
        rows = [_result_row(result) for result in found]
        note = f"{FIGURES[found[0].figure]}; roof: {found[0].roof}"
        if any((result.fraction or 0) > 1 for result in found):
            note += f" ({OVER}: measured too low, as on a machine that others use)"
        tables.append(Table(f"{name}: {DESCRIPTIONS.get(name, '')}", columns, rows, num_left=2, note=note))
    return tables


def _result_row(result: Result) -> tuple[str, ...]:
    label, tokens = result.variant.label, ("✓ " if result.check.ok else "✗ ") + result.check.text
    if not result.check.ok:
        return (label, tokens, *["–"] * 5)
    rounds = f"{number(min(result.rates))} to {number(max(result.rates))}"
    first = sorted(result.first_tokens)[len(result.first_tokens) // 2] if result.first_tokens else None
    return (
        label,
        tokens,
        number(result.rate),
        rounds,
        factor(result.ratio),
        roof_share(result.fraction),
        "–" if first is None else milliseconds(first),
    )


def stream_table(points: Sequence[Point]) -> Table:
    """All engines by the number of streams."""
    columns = (
        "streams", "engine", "tokens", "output tok/s", "first token p50", "p99", "between tokens p50", "p99",
    )  # fmt: skip
    rows = [_point_row(point) for point in points]
    note = f"{STREAMS}. {FEW}"
    return Table("Streams", columns, rows, num_left=3, note=note)


def _point_row(point: Point) -> tuple[str, ...]:
    mark = "✓" if point.check.ok else "✗ " + point.check.text
    times = (point.first_token_p50, point.first_token_p99, point.gap_p50, point.gap_p99)
    figures = [number(point.rate), *map(milliseconds, times)] if point.check.ok else ["–"] * 5
    return (str(point.concurrency), point.variant.label, mark, *figures)


def change_table(changes: Sequence[Change], path: str, unlike: Sequence[str] = ()) -> Table:
    """What changed since a saved run; `unlike` says what else is not as it was then."""
    columns = ("workload", "engine", "verdict", "of the roof", "against the first", "tok/s", "noise")
    rows = [
        (
            change.workload,
            change.label,
            change.verdict,
            _factor(change.against_roof),
            _factor(change.against_first),
            _factor(change.rate),
            f"± {change.noise:.0%}",
        )
        for change in changes
    ]
    note = "factors above 1 are faster now; the verdict goes by the fraction of the roof, measured beside the engines"
    if not changes:
        note = "no engine was measured on the same workload then and now"
    if unlike:
        note += f". HARD TO COMPARE: {'; '.join(unlike)}"
    return Table(f"Since {path}", columns, rows, num_left=3, note=note)


def _factor(value: float | None) -> str:
    return "–" if value is None else factor(value)


def factor(value: float) -> str:
    """How many times."""
    return f"{value:.2f} x" if value < 10 else f"{number(value)} x"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"


def roof_share(fraction: float | None) -> str:
    """Of the roof. More than all of it only says that the roof was measured too low."""
    return "–" if fraction is None else OVER if fraction > 1 else f"{fraction:.0%}"


def milliseconds(seconds: float) -> str:
    """With the unit that suits."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{number(seconds * 1e3)} ms"


def facts(report: Report) -> list[tuple[str, str]]:
    """Everything that the figures depend on."""
    best = [f"{report.num_bytes / 1e6:,.0f} MB of weights read at {_best_rate(report)}"] if report.roofs else []
    rates = _best_flops(report)
    return [
        ("model", f"{report.model}, {report.num_bytes / 1e6:,.1f} MB"),
        ("engines run on", f"{report.device}, CPU threads: {report.threads}"),
        *report.machine.items(),
        ("memory roof", "; ".join(best) or "not measured"),
        ("arithmetic roof", rates or "not measured"),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        ("rounds", f"{report.rounds} after a warm-up, engines in turns" + _part(report)),
        ("how quiet it was", quiet(report)),
        ("measured", report.started),
        ("command", report.command),
    ]


def _best_rate(report: Report) -> str:
    return f"{max(roof.bytes_per_second for roof in report.roofs) / 1e9:,.0f} GB/s"


def _best_flops(report: Report) -> str:
    dtypes = sorted({dtype for roof in report.roofs for dtype in roof.flops_per_second})
    best = {dtype: max(roof.flops_per_second.get(dtype, 0) for roof in report.roofs) for dtype in dtypes}
    return ", ".join(f"{dtype} {number(rate / 1e9)} G/s" for dtype, rate in best.items())


def _part(report: Report) -> str:
    return "" if report.share == 1 else f"; a QUICK LOOK at 1/{report.share} of the workloads"


def quiet(report: Report) -> str:
    """How much the machine was disturbed."""
    said = []
    if report.others:
        most, usual = max(report.others), statistics.median(report.others)
        said.append(f"other processes kept {usual:.1f} CPUs busy ({most:.1f} at most)")
    if report.loads:
        said.append(f"load average {' before, '.join(f'{load:.1f}' for load in report.loads)} after")
    if report.drift is not None:
        said.append(f"the machine's memory rate moved by {report.drift:.0%} between rounds")
    return "; ".join(said) or "not measured"


def disturbance(report: Report) -> str:
    """Return what to tell before any figure where others had a part of the machine, else ""."""
    usual = statistics.median(report.others) if report.others else 0.0
    if usual <= BUSY_CPUS:
        return ""
    return f"not quiet: other processes kept {usual:.1f} CPUs busy, so take the figures for a look only"


def rich_table(table: Table) -> Any:
    """The same for a terminal."""
    from rich.table import Table as RichTable  # noqa: PLC0415  (only a terminal needs it)
    from rich.text import Text  # noqa: PLC0415

    shown = RichTable(title=table.title, caption=table.note, title_justify="left", caption_justify="left")
    for index, column in enumerate(table.columns):
        left = index < table.num_left
        shown.add_column(column, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for row in table.rows:
        style = "red" if any(cell.startswith("✗") or cell == "SLOWER" for cell in row) else ""
        shown.add_row(*(Text(cell, style=style) for cell in row))
    return shown
