"""Write a saved comparison into docs/benchmarks.md, with its chart: python -m benchmarks.document RUN.json

RUN.json is of `isotoken bench --json`. The tables, the facts and the chart all come out of that file, which is kept in
docs/benchmarks/ beside the page of charts, so that a later run can be compared with it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from isotoken.api.bench.charts import WIDTH, stream_chart, styles
from isotoken.api.bench.page import STREAM_CHARTS, write_page
from isotoken.api.bench.results import Report, load_report
from isotoken.api.bench.tables import Table, facts, stream_table, workload_tables

from .schedulers import write_page as write_section

NAME = "backends"
BEGIN, END = (f"<!-- backends: {word} -->" for word in ("begin (made by benchmarks/document.py)", "end"))
SHOWN = ("rate", "first50", "gap50", "gap99")

STYLE = """text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1d2127 }
.heading { font-size: 14px; font-weight: 600 } .tick { fill: #5c6570 } .grid { stroke: #e2e0dc }
.line { fill: none; stroke-width: 2 } .mark { stroke: #fff } .page { fill: #fff }"""
COLOURS = ("#0b63b0", "#c4501b", "#15803d", "#8a3fa0", "#96690a", "#0c7d84")


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    lines = [f"**{table.title}** ({table.note})" if table.note else f"**{table.title}**", ""]
    lines.append("| " + " | ".join(table.columns) + " |")
    lines.append("|" + "|".join("---" if i < table.num_left else "--:" for i in range(len(table.columns))) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join(lines)


def chart(report: Report) -> str:
    """Return the charts by streams as one picture that needs no style sheet."""
    looks = styles(report.variants)
    parts, height, gap = [], 270, 24
    for index, (name, title, value, seconds) in enumerate(c for c in STREAM_CHARTS if c[0] in SHOWN):
        drawn = stream_chart(name, report.points, looks, value, title=title, seconds=seconds)
        x, y = (index % 2) * (WIDTH + gap), (index // 2) * (height + gap)
        parts.append(drawn.replace("<svg ", f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{height}" ', 1))
    top = 2 * (height + gap)
    for index, (variant, style) in enumerate(looks.items()):
        x, y = (index % 3) * 320, top + 20 * (index // 3)
        line = f'<path class="line c{style.colour}" stroke-dasharray="{style.dash}" d="M0 0h30"/>'
        mark = f'<path class="mark c{style.colour}" transform="translate(15 0)" d="{style.shape}"/>'
        parts.append(f'<g transform="translate({x} {y})">{line}{mark}<text x="38" dy="4">{variant.label}</text></g>')
    size = f'viewBox="-16 -8 {2 * WIDTH + gap + 32} {top + 20 * (len(looks) // 3 + 1) + 16}"'
    colours = " ".join(f".line.c{i} {{ stroke: {c} }} .mark.c{i} {{ fill: {c} }}" for i, c in enumerate(COLOURS))
    background = '<rect class="page" x="-16" y="-8" width="100%" height="100%"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE} {colours}</style>{background}'
    return re.sub(r' role="img"| aria-hidden="true"', "", head + "".join(parts) + "</svg>\n")


def section(report: Report) -> str:
    """Return the section of docs/benchmarks.md."""
    tables = "\n\n".join(markdown(table) for table in workload_tables(report.results))
    streams = f"{markdown(stream_table(report.points))}\n" if report.points else ""
    depends = "\n".join(f"- {name}: {value}" for name, value in facts(report) if name != "command")
    return f"""## Backends

```sh
{report.command}
```

![Throughput and latency by the number of streams](images/{NAME}.svg)

{tables}

<details><summary>Throughput and latency by the number of streams, as a table</summary>

{streams}
</details>

What these figures depend on:

{depends}

The same with all charts: [benchmarks/{NAME}.html](benchmarks/{NAME}.html); the figures, to compare with:
[benchmarks/{NAME}.json](benchmarks/{NAME}.json).
"""


def main(argv: list[str] | None = None) -> int:
    """Write section, chart, page and figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    args = parser.parse_args(argv)
    report = load_report(args.report)
    if not report.ok:
        parser.error(f"{args.report}: an engine's tokens are wrong; such a run is not published")
    report.save(args.docs / "benchmarks" / f"{NAME}.json")
    write_page(report, args.docs / "benchmarks" / f"{NAME}.html")
    (args.docs / "images").mkdir(exist_ok=True)
    (args.docs / "images" / f"{NAME}.svg").write_text(chart(report))
    write_section(args.docs / "benchmarks.md", section(report), BEGIN, END)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
