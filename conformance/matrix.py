"""The conformance matrix: one or several JSON reports as a markdown table, behaviours down, targets across."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .spec import behaviours

_MARKS = {"passed": "✓", "failed": "**✗**", "excluded": "✗ known", "absent": "–", "not run": ""}
_AREAS = {
    "CON": "Contract", "LOG": "Logits", "GRE": "Greedy", "SEE": "Seeded", "INV": "Invariance", "SPE": "Speculation",
    "LIF": "Lifecycle", "SCO": "Scoring", "NUM": "Numbers",
}  # fmt: skip


def matrix(reports: Sequence[Mapping[str, Any]]) -> str:
    """Lay reports out as markdown."""
    targets = [target for report in reports for target in report["targets"]]
    versions = sorted({(report["suite_version"], report["isotoken_version"]) for report in reports})
    stated = "; ".join(f"suite {suite}, isotoken {package}" for suite, package in versions)
    heads = [f"{t['backend']} {t['dtype']}" + ("" if t["device"] == "auto" else f" {t['device']}") for t in targets]
    lines = [
        "# Conformance",
        "",
        f"Made by `isotoken conformance matrix` from the reports of {stated}.",
        "✓ passed, ✗ failed, – declared absent (reasons below), empty: not run.",
        "",
        _row(["Behaviour", *heads]),
        _row(["---"] * (len(heads) + 1)),
    ]
    for number, sentence in behaviours().items():
        cells = [_cell(target["behaviours"].get(number, {})) for target in targets]
        lines.append(_row([f"{number} {_short(sentence)}", *cells]))
    lines += ["", *_numbers(targets, heads), *_reasons(targets, heads)]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(found: Mapping[str, Any]) -> str:
    mark = _MARKS[found.get("outcome", "not run")]
    return mark + (" partly" if found.get("outcome") == "passed" and found.get("reasons") else "")


def _short(sentence: str) -> str:
    """The first clause of a behaviour, enough to recognise it by."""
    short = sentence
    for stop in (". ", "; ", ": "):
        short = short.split(stop)[0]
    return short.rstrip(".").replace("|", "\\|")


def _numbers(targets: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> list[str]:
    """What was measured: how exact, and how many positions the bound could not decide."""
    lines = [
        "## Numbers",
        "",
        "Largest logits error and its bound in parts of the row's largest magnitude. A near-tie is a position",
        "whose margin is too small for the bound to decide; SPEC.md says how they are judged.",
        "",
        _row(["", *heads]),
        _row(["---"] * (len(heads) + 1)),
    ]
    rows = {
        "largest logits error": [f"{t['numbers']['max_logits_error']:.1e}" for t in targets],
        "bound": [f"{t['bound']:.0e}" for t in targets],
        "positions decided": [str(t["numbers"]["decided"]) for t in targets],
        "near-ties": [str(t["numbers"]["near_ties"]) for t in targets],
        "of those, fell otherwise": [str(t["numbers"]["flips"]) for t in targets],
    }
    return [*lines, *(_row([name, *cells]) for name, cells in rows.items()), ""]


def _reasons(targets: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> list[str]:
    """Who said why something is absent or excluded, and what else was skipped."""
    lines = []
    for target, head in zip(targets, heads, strict=True):
        for name, why in target["absences"].items():
            lines.append(f"- {head}: `{name}` {why['kind'].replace('_', ' ')}: {why['reason']} {why['issue']}".rstrip())
        for number, found in target["behaviours"].items():
            others = [r for r in found.get("reasons", ()) if r.split(" ", 1)[0] not in target["absences"]]
            if others:
                lines.append(f"- {head}: {number} {'; '.join(others)}")
    return ["## Declared absences and exclusions", "", *lines] if lines else []


def _report(path: str) -> dict[str, Any]:
    """Read a report, for argparse. Raises ArgumentTypeError where the file holds something else."""
    try:
        report = json.loads(Path(path).read_bytes())
    except ValueError:
        report = None
    if not isinstance(report, dict) or not {"suite_version", "isotoken_version", "targets"} <= report.keys():
        raise argparse.ArgumentTypeError(f"{path} is not a conformance report")
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Print the matrix of the report files named on the command line, or write it to a file."""
    parser = argparse.ArgumentParser(prog="isotoken conformance matrix", description=__doc__)
    parser.add_argument("reports", nargs="+", type=_report, help="files written by --conformance-report")
    parser.add_argument("--output", type=Path, help="write here instead of printing")
    args = parser.parse_args(argv)
    text = matrix(args.reports)
    if args.output:
        args.output.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
