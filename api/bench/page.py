"""The comparison as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from .charts import stream_chart, styles, swatch, workload_chart
from .results import Point, Report
from .tables import FEW, Table, facts, quiet, stream_table, workload_tables
from .workloads import DESCRIPTIONS

TEMPLATE = "page.html"

STREAM_CHARTS = (
    ("rate", "Output tokens a second", lambda point: point.rate, False),
    ("each", "Tokens a second for each stream", lambda point: point.rate / point.concurrency, False),
    ("first50", "Time to the first token, half of the requests", lambda point: point.first_token_p50, True),
    ("first99", "Time to the first token, 99 of 100 requests", lambda point: point.first_token_p99, True),
    ("gap50", "Time between tokens, half of them", lambda point: point.gap_p50, True),
    ("gap99", "Time between tokens, 99 of 100", lambda point: point.gap_p99, True),
)


def write_page(report: Report, path: Path, since: Table | None = None) -> None:
    """Write the page. `since` is what changed since a saved run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(report, since), encoding="utf-8")


def render_page(report: Report, since: Table | None = None) -> str:
    """Return the page."""
    looks = styles(report.variants)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    workloads = [
        (name, DESCRIPTIONS.get(name, ""), Markup(workload_chart(f"w{name}", list(group), looks, f"Workload {name}")))
        for name, group in groupby(report.results, key=lambda result: result.workload)
    ]
    return environment.get_template(TEMPLATE).render(
        report=report,
        legend=[(Markup(swatch(style)), variant.label) for variant, style in looks.items()],
        workloads=workloads,
        streams=_stream_charts(report.points, report),
        tables=workload_tables(report.results),
        stream_table=stream_table(report.points) if report.points else None,
        since=since,
        facts=facts(report),
        quiet=quiet(report),
        few=FEW,
        wrong=[check.text for check in report.checks if not check.ok],
        num_judged=sum(check.verdict.positions for check in report.checks),
    )


def _stream_charts(points: list[Point], report: Report) -> list[Markup]:
    looks = styles(report.variants)
    return [
        Markup(stream_chart(name, points, looks, value, title=title, seconds=seconds))
        for name, title, value, seconds in STREAM_CHARTS
        if points
    ]
