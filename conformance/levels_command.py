"""`isotoken conformance levels`: measure the levels of agreement, show them as a table, write them as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..plugins.manager import Plugins
from .levels import Pair, all_pairs, failures, run
from .sides import parse
from .subjects import TRAINED, Subject, random_subjects, trained_subject
from .targets import Target

SIDES = ("reference", "torch", "torch:bfloat16", "onnxruntime", "onnxruntime:int8", "onnxruntime:int4")
"""What is compared where nothing else is asked for: those of them that are installed."""
_FAMILIES = ("random", TRAINED)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 where every level holds and every negative control is caught, else 1."""
    args = _parser().parse_args(argv)
    plugins, console = Plugins.load(), Console(stderr=True)
    targets, pairs = _targets(args, plugins)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="isotoken-") as folder:
        subjects = _subjects(args.subject or _FAMILIES, args.tokens, Path(folder))
        report = run(targets, pairs, subjects, plugins, Path(folder) / "goldens", console.print)
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    show(report, Console())
    console.print(f"{time.monotonic() - began:.0f} s")
    return 0 if report["holds"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="isotoken conformance levels", description=__doc__)
    side = "NAME[:DTYPE][:QUANTIZATION][:DEVICE]"
    parser.add_argument("--pair", nargs=2, action="append", metavar=("A", "B"), help=f"two sides: {side}; repeatable")
    parser.add_argument("--backend", action="append", metavar="A", help="a side; all pairs of those named")
    parser.add_argument("--subject", action="append", choices=_FAMILIES, help="models to compare on (default: all)")
    parser.add_argument("--tokens", type=int, metavar="N", help="at most about N tokens of each family of models")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser


def _targets(args: argparse.Namespace, plugins: Plugins) -> tuple[list[Target], list[Pair]]:
    if args.pair:
        pairs = [(parse(one, plugins), parse(other, plugins)) for one, other in args.pair]
        return list(dict.fromkeys(target for pair in pairs for target in pair)), pairs
    sides = args.backend or [side for side in SIDES if _usable(side, plugins)]
    targets = list(dict.fromkeys(parse(side, plugins) for side in sides))
    return targets, all_pairs(targets)


def _usable(side: str, plugins: Plugins) -> bool:
    try:
        parse(side, plugins)
    except Exception as error:  # not installed, in whatever way the backend says so
        print(f"{side} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return False
    return True


def _subjects(families: Sequence[str], tokens: int | None, folder: Path) -> list[Subject]:
    """Random models first: they are small, and level 0 takes the first."""
    found = random_subjects(folder) if "random" in families else []
    each = tokens // len(found) if tokens and found else tokens
    found = [_cut(subject, each) for subject in found]
    return [*found, _cut(trained_subject(), tokens)] if TRAINED in families else found


def _cut(subject: Subject, tokens: int | None) -> Subject:
    count = len(subject.sequences) if tokens is None else max(1, tokens // len(subject.sequences[0]))
    return replace(subject, sequences=subject.sequences[:count])


def show(report: dict[str, Any], console: Console) -> None:
    """Print the certificates, the controls, and what is amiss."""
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has room
    table = Table("", "on", "level", "tokens", "decided", "near-ties", "flips", "wrong", "largest error", "bound")
    for entry in (*report["targets"], *report["pairs"]):
        name = f"{entry['target']} / oracle" if "target" in entry else " / ".join(entry["pair"])
        counts = {key: str(entry[key]) for key in ("tokens", "decided", "near_ties", "flips", "wrong")}
        level, bound = entry.get("level", ""), "none"
        if entry["bound"] is None:  # other weights: nothing is decided, and nothing certified
            level = ""
            counts |= dict.fromkeys(("decided", "near_ties", "wrong"), "")
        else:
            bound = f"{entry['bound']:.0e}"
        table.add_row(name, entry["subject"], level, *counts.values(), f"{entry['max_error']:.1e}", bound)
    console.print(table)
    for control in report["controls"]:
        caught = f"caught at {control['beyond'] + control['wrong']} places" if control["caught"] else "NOT CAUGHT"
        console.print(f"negative control: {control['control']} on {control['subject']}: {caught}")
    for line in failures(report):
        console.print(f"[red]{line}[/red]")
    console.print("every level holds" if report["holds"] else "[red]not every level holds[/red]")
