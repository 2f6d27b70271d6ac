"""Compare two runs by what a machine that drifts leaves alone: fractions of its roof, and ratios between engines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .results import Report, Result, load_report

LEAST_NOISE, NOISE_OF_ONE_ROUND = 0.02, 0.25

EXTRA_INFO = "isotoken"
"""Where a pytest-benchmark file keeps our result, under extra_info."""


@dataclass(frozen=True, slots=True)
class Change:
    """One engine on one workload, then and now. Factors above 1 are faster now."""

    workload: str
    label: str
    rate: float  # raw, and so as much the machine's as the engine's
    against_roof: float | None  # by the fraction of the roof
    against_first: float | None  # by the ratio to the first engine; None for the first itself, or another first
    noise: float  # the wider of both runs' spreads (a single round has none to show): a change within it says nothing

    @property
    def factor(self) -> float:
        """The sturdiest of the figures that there are."""
        return self.against_roof or self.against_first or self.rate

    @property
    def verdict(self) -> str:
        """In a word."""
        if abs(self.factor - 1) <= self.noise:
            return "as before"
        return "faster" if self.factor > 1 else "SLOWER"


def load_results(path: Path) -> list[Result]:
    """Read a report of `isotoken bench --json`, or a file of pytest-benchmark. Raises ValueError for neither."""
    try:
        found: Any = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: this is not JSON: {error}") from error
    if not isinstance(found, dict) or "benchmarks" not in found:
        return load_report(path).results
    extras: list[Mapping[str, Any]] = [benchmark.get("extra_info", {}) for benchmark in found["benchmarks"]]
    results = [msgspec.convert(extra[EXTRA_INFO], Result) for extra in extras if EXTRA_INFO in extra]
    if not results:
        raise ValueError(f"{path}: no result of `pytest benchmarks --backend ...` is in here")
    return results


def compare(then: Sequence[Result], now: Sequence[Result]) -> list[Change]:
    """Pair what is in both."""
    old = {(result.workload, result.variant.label): result for result in then}
    pairs = [(old[key], result) for result in now if (key := (result.workload, result.variant.label)) in old]
    same_first = _firsts(then) == _firsts(now)
    return [_change(before, after, same_first=same_first) for before, after in pairs]


def _firsts(results: Sequence[Result]) -> set[str]:
    return {result.variant.label for result in results if all(ratio == 1 for ratio in result.ratios)}


def _change(before: Result, after: Result, *, same_first: bool) -> Change:
    fractions = (before.fraction, after.fraction)
    is_first = before.ratio == after.ratio == 1
    return Change(
        workload=after.workload,
        label=after.variant.label,
        rate=after.rate / before.rate,
        against_roof=None if fractions[0] is None or fractions[1] is None else fractions[1] / fractions[0],
        against_first=after.ratio / before.ratio if same_first and not is_first else None,
        noise=max(_noise(before), _noise(after)),
    )


def _noise(result: Result) -> float:
    return max(result.spread, LEAST_NOISE) if len(result.rates) > 1 else NOISE_OF_ONE_ROUND


def unlike(path: Path, now: Report) -> list[str]:
    """What makes a saved report hard to compare with, in words; nothing is known of a file of pytest-benchmark."""
    if "benchmarks" in json.loads(path.read_bytes()):
        return []
    then = load_report(path)
    pairs = {
        "model": (then.model, now.model),
        "device": (then.device, now.device),
        "processor": (then.machine.get("processor"), now.machine.get("processor")),
        "threads": (str(then.threads), str(now.threads)),
        "part of the workloads": (f"1/{then.share}", f"1/{now.share}"),
    }
    return [f"{what} {old} then, {new} now" for what, (old, new) in pairs.items() if old != new]
