"""The figures of the comparison: gains by kind of guesses, and what a step costs by its number of tokens."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .controlled import LOOK_UP, Agreement, Tally
from .stream import Answer

TARGETS: dict[Agreement, float] = {0.75: 2.0, 0.5: 1.4, LOOK_UP: 1.5}

HEADER = (
    f"{'right':>8} {'without':>9} {'with':>9} {'gain':>7} {'least':>6} {'most':>6} {'accepted':>9} "
    f"{'tokens':>7} {'drafts':>7}   (the last two a step)"
)


@dataclass(slots=True)
class Row:
    """One kind of guesses, over the rounds."""

    agreement: Agreement
    without: list[float] = field(default_factory=list)  # tokens a second after the first, in each round,
    speeds: list[float] = field(default_factory=list)  # and with drafts
    tally: Tally = field(default_factory=Tally)  # of all rounds

    def add(self, base: Answer, answer: Answer, tally: Tally) -> None:
        """Take note of a round: the answers without and with drafts, and the steps of the latter."""
        self.without.append(base.speed)
        self.speeds.append(answer.speed)
        self.tally.take(tally)

    @property
    def gains(self) -> list[float]:
        """With drafts over without, round by round."""
        return [speed / base for speed, base in zip(self.speeds, self.without, strict=True)]

    def figures(self) -> dict[str, Any]:
        """Everything, for a file."""
        tally = self.tally
        return {
            "agreement": self.agreement,
            "without": self.without,
            "speeds": self.speeds,
            "gains": self.gains,
            "gain": statistics.median(self.gains),
            "target": TARGETS.get(self.agreement),
            "acceptance": tally.accepted / max(tally.drafted, 1),
            "tokens_per_step": tally.tokens / max(tally.steps, 1),
            "drafts_per_step": tally.drafted / max(tally.steps, 1),
            "stops": tally.stops,
        }

    def line(self) -> str:
        """One line of the table."""
        found, gains = self.figures(), self.gains
        name = str(self.agreement) if isinstance(self.agreement, str) else f"{self.agreement:.0%}"
        speeds = f"{statistics.median(self.without):9.1f} {statistics.median(self.speeds):9.1f}"
        spread = f"{found['gain']:6.2f}x {min(gains):6.2f} {max(gains):6.2f}"
        a_step = f"{found['tokens_per_step']:7.2f} {found['drafts_per_step']:7.2f}"
        verdict = ""
        if (target := found["target"]) is not None:
            verdict = f"   target {target}: {'met' if found['gain'] >= target else 'MISSED'}"
        return f"{name:>8} {speeds} {spread} {found['acceptance']:9.0%} {a_step}{verdict}"


def step_costs(rows: Sequence[Row]) -> dict[int, float]:
    """Median seconds of a step by its number of tokens, where there were enough to tell."""
    seconds: dict[int, list[float]] = {}
    for row in rows:
        for size, times in row.tally.seconds.items():
            seconds.setdefault(size, []).extend(times)
    return {size: statistics.median(times) for size, times in sorted(seconds.items()) if len(times) >= 5}


def verify_cost(costs: dict[int, float]) -> float | None:
    """Cost of one more token in parts of a step of one: the slope of the best line through (1, 1)."""
    points = [(size - 1, seconds / costs[1] - 1) for size, seconds in costs.items()] if 1 in costs else []
    weight = sum(x * x for x, _ in points)
    return sum(x * y for x, y in points) / weight if weight else None
