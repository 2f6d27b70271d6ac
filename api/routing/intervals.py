"""Figures with 95% confidence intervals, from sums that take no more room as they grow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

Interval = tuple[float, float]

LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(slots=True)
class Mean:
    """Count, mean and spread of numbers as they come (Welford's method)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # of the distances from the mean, summed

    def add(self, value: float) -> None:
        """Take a number in."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self.squares += distance * (value - self.mean)

    @property
    def error(self) -> float:
        """The mean's standard error; infinite before there are two numbers."""
        return math.inf if self.count < 2 else math.sqrt(self.squares / (self.count - 1) / self.count)

    def interval(self) -> Interval | None:
        """Return where the mean lies (Student's t); None before there are two numbers."""
        if self.count < 2:
            return None
        reach = quantile_t(self.count - 1) * self.error
        return self.mean - reach, self.mean + reach


@dataclass(slots=True)
class Rate:
    """How many of so many."""

    hits: int = 0
    count: int = 0

    def add(self, hit: bool) -> None:
        """Take one in."""
        self.hits += hit
        self.count += 1

    @property
    def rate(self) -> float:
        """Their share; 0 of none."""
        return self.hits / self.count if self.count else 0.0

    def interval(self) -> Interval | None:
        """Return where the rate lies (Wilson's score); None of none."""
        if not self.count:
            return None
        n, z2 = self.count, _Z * _Z
        middle = (self.rate + z2 / (2 * n)) / (1 + z2 / n)
        reach = _Z / (1 + z2 / n) * math.sqrt(self.rate * (1 - self.rate) / n + z2 / (4 * n * n))
        return max(0.0, middle - reach), min(1.0, middle + reach)


def difference(one: Mean, other: Mean) -> Interval | None:
    """Return where `other`'s mean minus `one`'s lies (Welch); None before there are two numbers of each."""
    if one.count < 2 or other.count < 2:
        return None
    gap, variances = other.mean - one.mean, (one.error**2, other.error**2)
    total = sum(variances)
    if total == 0:
        return gap, gap
    parts = (variance**2 / (each.count - 1) for variance, each in zip(variances, (one, other), strict=True))
    reach = quantile_t(total**2 / sum(parts)) * math.sqrt(total)
    return gap - reach, gap + reach


def difference_of_rates(one: Rate, other: Rate) -> Interval | None:
    """Return where `other`'s rate minus `one`'s lies (Newcombe's method 10); None where one has nothing."""
    first, second = one.interval(), other.interval()
    if first is None or second is None:
        return None
    gap = other.rate - one.rate
    down = math.hypot(other.rate - second[0], first[1] - one.rate)
    up = math.hypot(second[1] - other.rate, one.rate - first[0])
    return gap - down, gap + up


def quantile_t(freedom: float) -> float:
    """Return Student's t that 97.5% lie below, for `freedom` degrees, at least 1.

    One and two degrees are exact; from three on Hill's series (Algorithm 396, CACM 13(10), 1970), to 4 digits.
    """
    tail = 1 - LEVEL  # of both sides
    if freedom < 1.5:
        return 1 / math.tan(tail * math.pi / 2)
    if freedom < 2.5:
        return math.sqrt(2 / (tail * (2 - tail)) - 2)
    a = 1 / (freedom - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * freedom
    y = (d * tail) ** (2 / freedom)
    if y > 0.05 + a:
        x = -_Z
        y = x * x
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        inner = 1 / (((freedom + 6) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2) * 3) + 0.5 / (freedom + 4)
        y = (inner * y - 1) * (freedom + 1) / (freedom + 2) + 1 / y
    return math.sqrt(freedom * y)
