"""Axes: where round figures lie, and where a figure goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps figures between `low` and `high` to pixels between `start` and `end`, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel."""
        low, high, value = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round figures within, both ends included."""
        if self.log:
            ticks = [tick for tick in log_steps(self.low, self.high) if self.low <= tick <= self.high * 1.0001]
            return ticks if len(ticks) <= MOST_TICKS else [tick for tick in ticks if f"{tick:e}".startswith("1")]
        step = round_step((self.high - self.low) / 4)
        return [self.low + step * index for index in range(int((self.high - self.low) / step + 1.001))]


def linear_scale(most: float, start: float, end: float) -> Scale:
    """From zero to the next round figure."""
    step = round_step((most or 1.0) / 4)
    return Scale(0.0, step * math.ceil((most or 1.0) / step), start, end)


def log_scale(least: float, most: float, start: float, end: float) -> Scale:
    """From the round figure (1, 2 or 5) below to the one above; at least one step wide."""
    steps = log_steps(least / 10, most * 10)
    low = max(step for step in steps if step <= least * 1.0001)
    high = min(step for step in steps if step >= most * 0.9999 and step > low)
    return Scale(low, high, start, end, log=True)


def log_steps(least: float, most: float) -> list[float]:
    """1, 2 and 5 times every power of ten between."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    return [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]


def round_step(rough: float) -> float:
    """The next 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((digit * power for digit in (1, 2, 2.5, 5) if digit * power >= rough * 0.9999), 10 * power)
