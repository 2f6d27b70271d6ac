"""The tour: each thing that going live needs, shown on the running server, and the report of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asking
import operating

if TYPE_CHECKING:
    from run import Stand


@dataclass(frozen=True, slots=True)
class Shown:
    """One thing, and whether it was as it should be."""

    title: str
    good: bool
    lines: list[str]


Step = Callable[["Stand", float], tuple[bool, list[str]]]
STEPS: tuple[Step, ...] = (
    operating.configuration,
    asking.keys,
    asking.limits,
    asking.safety,
    asking.structured,
    asking.load_test,
    asking.experiments,
    operating.versions,
    operating.failure,
    operating.monitoring,
    operating.costs,
    operating.privacy,
    operating.drill,
)


def tour(stand: Stand, seconds: float) -> Iterator[Shown]:
    """Show everything, one thing after the other."""
    for step in STEPS:
        title = (step.__doc__ or "").rstrip(".")
        try:
            good, lines = step(stand, seconds)
        except Exception as error:  # the rest is of interest still
            good, lines = False, [f"{type(error).__name__}: {error}"]
        print(f"{'ok  ' if good else 'FAIL'} {title}", flush=True)
        yield Shown(title, good, lines)


def write(shown: Iterator[Shown], path: Path) -> int:
    """Write the report as it comes; return 1 when anything was not as it should be."""
    parts, bad = [], 0
    for each in shown:
        bad += not each.good
        mark = "" if each.good else " — NOT AS IT SHOULD BE"
        lines = "\n".join(line.rstrip() for line in each.lines)
        parts.append(f"## {each.title}{mark}\n\n```text\n{lines}\n```\n")
    head = (
        "# A run of examples/production\n\n"
        f"`python examples/production/run.py --report report.md`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs: "
        f"{len(parts)} things shown, {bad} not as they should be.\nClient, server, database and Prometheus share the "
        "CPUs with whatever else runs: the times are no benchmark.\n\n"
    )
    path.write_text(head + "\n".join(parts))
    print(f"wrote {path}")
    return 1 if bad else 0
