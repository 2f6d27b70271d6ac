"""Reports on running servers as Markdown: behaviours down, servers across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..spec import http_behaviours

_MARKS = {"passed": "✓", "failed": "**✗**", "absent": "–"}


def servers_table(servers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the section on servers; none where there are none."""
    if not servers:
        return []
    heads = [f"{server['owned_by']} {server['model']}" for server in servers]
    lines = [
        "## Servers over HTTP",
        "",
        "What clients see of a running server (`isotoken conformance --url URL`): ✓ passed, ✗ failed, – not offered.",
        "",
        _row(["Behaviour", *heads]),
        _row(["---"] * (len(heads) + 1)),
    ]
    for number, sentence in http_behaviours().items():
        cells = [_cell(server["behaviours"].get(number, {})) for server in servers]
        lines.append(_row([f"{number} {_clause(sentence)}", *cells]))
    numbers = [f"{s['numbers']['near_ties']} of {s['numbers']['compared']} within {s['near_tie']:g}" for s in servers]
    lines.append(_row(["near-ties that fell otherwise, of the texts compared", *numbers]))
    return [*lines, "", *_reasons(servers, heads)]


def _reasons(servers: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> list[str]:
    lines = [
        f"- {head}: {number} {'; '.join(found['reasons'])}"
        for server, head in zip(servers, heads, strict=True)
        for number, found in server["behaviours"].items()
        if found.get("reasons")
    ]
    return [*lines, ""] if lines else []


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(found: Mapping[str, Any]) -> str:
    partly = " partly" if found.get("outcome") == "passed" and found.get("reasons") else ""
    return _MARKS.get(str(found.get("outcome")), "") + partly


def _clause(sentence: str) -> str:
    """The first clause, enough to recognise a behaviour by."""
    for stop in (". ", "; ", ": "):
        sentence = sentence.split(stop, maxsplit=1)[0]
    return sentence.rstrip(".").replace("|", "\\|")
