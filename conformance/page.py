"""The matrix as one HTML page that needs no other file: the picture, and the Markdown's tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --paper: #fff; --head: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --paper: #0d1117; --head: #151b23; }
}
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; color: var(--ink);
  background: var(--paper); max-width: 1180px; margin: 0 auto; padding: 24px 20px 80px; }
h1 { margin: 0 0 8px } h3 { margin-top: 32px }
h2 { margin: 44px 0 8px; padding-top: 12px; border-top: 1px solid var(--line) }
p, li { max-width: 80ch }
figure { margin: 24px 0; border: 1px solid var(--line); border-radius: 8px; overflow-x: auto; background: #fff }
figure svg { display: block; margin: 0 auto; max-width: none }
.wide { overflow-x: auto; max-height: 80vh; border: 1px solid var(--line); border-radius: 8px; margin: 16px 0 }
table { border-collapse: collapse; font-size: 13px; min-width: 100% }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums }
th { position: sticky; top: 0; background: var(--head); white-space: normal; vertical-align: bottom; min-width: 64px }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper);
  white-space: normal; min-width: 330px } th:first-child { background: var(--head); z-index: 1 }
code { background: var(--head); padding: 1px 5px; border-radius: 4px } li { margin: 4px 0 }
td.pass { color: #1a7f5a; text-align: center } td.fail { color: #cf222e; text-align: center; font-weight: 700 }
td.none { color: var(--faint); text-align: center }
"""
_CLASSES = {
    "✓": "pass",
    "✓ partly": "pass",
    "–": "none",
    "=": "pass",
    "**=**": "pass",
    "**✗**": "fail",
    "✗ known": "fail",
}


def page(markdown: str, picture: str) -> str:
    """Set the matrix's Markdown as HTML, the picture under its introduction."""
    title, *blocks = re.split(r"\n{2,}", markdown.strip())
    body = [f"<h1>{_inline(title.removeprefix('# '))}</h1>"]
    tables = [i for i, block in enumerate(blocks) if block.startswith("| ")]
    for index, block in enumerate(blocks):
        if picture and tables and index == tables[0] - 1:  # above the sentence that explains the first table
            body.append(f"<figure>{picture}</figure>")
        body += _block(block)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Conformance</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n' + "\n".join(
        [*body, "</body></html>\n"]
    )


def _block(block: str) -> Iterator[str]:
    """One paragraph, list, heading or table."""
    lines = block.splitlines()
    if lines[0].startswith("#"):
        marks, _, text = lines[0].partition(" ")
        yield f"<h{len(marks)}>{_inline(text)}</h{len(marks)}>"
    elif lines[0].startswith("| "):
        yield '<div class="wide"><table>'
        yield _cells(lines[0], "th")
        yield from (_cells(line, "td") for line in lines[2:])
        yield "</table></div>"
    elif lines[0].startswith("- "):
        yield "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>"
    else:
        yield f"<p>{_inline(' '.join(lines))}</p>"


def _cells(line: str, kind: str) -> str:
    cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    found = (f' class="{_CLASSES[cell]}"' if cell in _CLASSES else "" for cell in cells)
    return (
        "<tr>" + "".join(f"<{kind}{c}>{_inline(cell)}</{kind}>" for c, cell in zip(found, cells, strict=True)) + "</tr>"
    )


def _inline(text: str) -> str:
    """Code and bold; everything else as it stands."""
    parts = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text)
    return "".join(
        f"<code>{escape(p[1:-1])}</code>"
        if p.startswith("`")
        else f"<b>{escape(p[2:-2])}</b>"
        if p.startswith("**")
        else escape(p)
        for p in parts
    )
