"""What was measured, in rounds, beside what is to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(slots=True)
class Figure:
    """One number, measured anew in each round."""

    what: str
    unit: str
    target: float | None = None
    better: Literal["more", "less"] = "less"
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds)

    @property
    def reached(self) -> bool | None:
        """Whether the median is on the right side of the target; None where there is none."""
        if self.target is None:
            return None
        return self.median >= self.target if self.better == "more" else self.median <= self.target


@dataclass(slots=True)
class Measurement:
    """The figures of one kind of load."""

    name: str
    how: str
    figures: list[Figure]

    def add(self, values: Sequence[float]) -> None:
        """Add a round, a value for each figure."""
        for figure, value in zip(self.figures, values, strict=True):
            figure.rounds.append(value)


def percentile(values: Sequence[float] | np.ndarray, percent: float) -> float:
    """Return a percentile that was really seen, not one between two."""
    return float(np.percentile(np.asarray(values), percent, method="higher"))


def number(value: float) -> str:
    """Write a figure with three digits that mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def rows(measurements: Sequence[Measurement]) -> list[tuple[str, ...]]:
    """Return what a table shows: load, figure, median, lowest to highest round, target, whether it was reached."""
    found: list[tuple[str, ...]] = []
    for measurement in measurements:
        for i, figure in enumerate(measurement.figures):
            target = ""
            if figure.target is not None:
                target = ("at least " if figure.better == "more" else "below ") + number(figure.target)
            spread = f"{number(min(figure.rounds))} to {number(max(figure.rounds))}"
            verdict = {True: "yes", False: "**no**", None: ""}[figure.reached]
            name = measurement.name if i == 0 else ""
            found.append((name, f"{figure.what}, {figure.unit}", number(figure.median), spread, target, verdict))
    return found


COLUMNS = ("load", "figure", "median", "rounds", "target", "reached")


def markdown(measurements: Sequence[Measurement]) -> str:
    """Return the table as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|--:|--:|--:|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows(measurements))])


def plain(measurements: Sequence[Measurement]) -> str:
    """Return the table for a terminal."""
    table = [COLUMNS, *((*row[:5], row[5].strip("*")) for row in rows(measurements))]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(w) if i in (0, 1, 5) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
