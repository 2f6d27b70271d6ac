"""The conformance matrix: reports and levels as Markdown, behaviours down, targets across; the page has a picture."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .http.table import servers_table
from .levels_table import levels_table
from .page import page
from .picture import head, picture
from .spec import behaviours

_MARKS = {"passed": "✓", "failed": "**✗**", "excluded": "✗ known", "absent": "–", "not run": ""}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a matrix is made of."""

    reports: Sequence[Mapping[str, Any]]  # as --conformance-report writes them
    levels: Mapping[str, Any] | None = None  # as `isotoken conformance levels --output` does
    notes: Sequence[str] = ()  # sentences that stand above all

    @property
    def targets(self) -> list[Mapping[str, Any]]:
        """Every backend's target of every report."""
        return [target for report in self.reports for target in report["targets"] if target.get("kind") != "server"]

    @property
    def servers(self) -> list[Mapping[str, Any]]:
        """Every server of every report, as `isotoken conformance --url` writes them."""
        return [target for report in self.reports for target in report["targets"] if target.get("kind") == "server"]


def matrix(contents: Contents, image: str = "") -> str:
    """Lay everything out as Markdown; `image` is the picture's address."""
    targets = contents.targets
    versions = sorted({(report["suite_version"], report["isotoken_version"]) for report in contents.reports})
    stated = "; ".join(f"suite {suite}, isotoken {package}" for suite, package in versions)
    heads = [head(target) for target in targets]
    lines = [
        "# Conformance",
        "",
        f"Made by `isotoken conformance matrix` from the reports of {stated}.",
        *(line for note in contents.notes for line in ("", note)),
        *(("", f"![Behaviours, invariance, errors and near-ties of every target]({image})") if image else ()),
        "",
    ]
    if targets:
        lines += _behaviours(targets, heads)
    if contents.levels:
        lines += levels_table(contents.levels)
    lines += [*_reasons(targets, heads), "", *servers_table(contents.servers)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _behaviours(targets: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> list[str]:
    """What each backend does, and how well."""
    lines = [
        "✓ passed, ✗ failed, – declared absent (reasons below), partly: some of its tests are; empty: not run.",
        "",
        _row(["Behaviour", *heads]),
        _row(["---"] * (len(heads) + 1)),
    ]
    for number, sentence in behaviours().items():
        cells = [_cell(target["behaviours"].get(number, {})) for target in targets]
        lines.append(_row([f"{number} {_short(sentence)}", *cells]))
    return [*lines, "", *_aspects(targets, heads), *_numbers(targets, heads)]


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


def _aspects(targets: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> list[str]:
    """What the bits of logits depend on."""
    lines = [
        "## Invariance, aspect by aspect",
        "",
        "**=** bitwise equal and declared, so required; = found bitwise equal; else the largest difference seen, in",
        "parts of the row's largest magnitude, which must be within twice the bound. SPEC.md says what each aspect is",
        "(INV-16 to INV-20).",
        "",
        _row(["", *heads]),
        _row(["---"] * (len(heads) + 1)),
    ]
    for aspect in targets[0]["invariance"]:
        lines.append(_row([aspect, *(_difference(target["invariance"][aspect]) for target in targets)]))
    return [*lines, ""]


def _difference(found: Mapping[str, Any]) -> str:
    off = found["largest_difference"]
    if off is None:
        return ""
    return f"{off:.0e}" if off else "**=**" if found["declared"] else "="


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
    """Who said why something is absent or excluded, and what else was skipped: a line for each reason."""
    said: dict[str, list[str]] = {}
    for target, name in zip(targets, heads, strict=True):
        for capability, why in target["absences"].items():
            reason = f"`{capability}` {why['kind'].replace('_', ' ')}: {why['reason']} {why['issue']}".rstrip()
            said.setdefault(reason, []).append(name)
        for number, found in target["behaviours"].items():
            others = [r for r in found.get("reasons", ()) if r.split(" ", 1)[0] not in target["absences"]]
            if others:
                said.setdefault(f"{number} {'; '.join(others)}", []).append(name)
    lines = [f"- {', '.join(names)}: {reason}" for reason, names in said.items()]
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


def _levels(path: str) -> dict[str, Any]:
    """Read a file of levels, for argparse. Raises ArgumentTypeError where it holds something else."""
    try:
        levels = json.loads(Path(path).read_bytes())
    except ValueError:
        levels = None
    if not isinstance(levels, dict) or not {"L0", "L1", "targets", "pairs", "controls"} <= levels.keys():
        raise argparse.ArgumentTypeError(f"{path} holds no levels")
    return levels


def main(argv: Sequence[str] | None = None) -> int:
    """Print the matrix of the report files named on the command line, or write it, its picture and its page."""
    parser = argparse.ArgumentParser(prog="isotoken conformance matrix", description=__doc__)
    parser.add_argument(
        "reports", nargs="+", type=_report, help="files written by --conformance-report, or by --report with --url"
    )
    parser.add_argument("--levels", type=_levels, help="file written by `isotoken conformance levels --output`")
    parser.add_argument("--note", action="append", default=[], help="a sentence to put above all; may be repeated")
    parser.add_argument("--output", type=Path, help="write here instead of printing")
    parser.add_argument("--picture", type=Path, help="write the picture as SVG")
    parser.add_argument("--html", type=Path, help="write a page that needs no other file")
    args = parser.parse_args(argv)
    contents = Contents(args.reports, args.levels, args.note)
    drawn = picture(contents.targets, contents.levels) if contents.targets else ""
    image = Path(os.path.relpath(args.picture, args.output.parent)).as_posix() if args.picture and args.output else ""
    files = {args.output: matrix(contents, image), args.picture: drawn, args.html: page(matrix(contents), drawn)}
    for path, text in files.items():
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if not args.output:
        sys.stdout.write(matrix(contents))
    return 0


if __name__ == "__main__":
    sys.exit(main())
