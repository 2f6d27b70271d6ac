"""What a comparison found, as values that can be written and read again."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .checks import Check
from .roof import Roof, RoofKind
from .workloads import Figure

FORMAT = "isotoken-bench-1"


@dataclass(frozen=True, slots=True)
class Variant:
    """An engine to be measured: a backend and how it is set up."""

    backend: str
    dtype: str = "auto"
    quantization: str | None = None
    scheduler: str = "continuous"

    @property
    def label(self) -> str:
        """In short: "onnxruntime float32 int8, static"."""
        words = [self.backend, self.dtype, *([self.quantization] if self.quantization else [])]
        return " ".join(words) + ("" if self.scheduler == "continuous" else f", {self.scheduler}")


@dataclass(frozen=True, slots=True)
class Result:
    """One engine on one workload."""

    workload: str
    variant: Variant
    figure: Figure
    rates: list[float]  # tokens a second in each round
    ratios: list[float]  # to the first engine's rate in the same round
    check: Check
    roof: RoofKind
    roof_rate: float | None  # tokens a second that the roof allows; None: nothing here could measure that roof
    first_tokens: list[float] = field(default_factory=list)  # mean seconds to the first token, of each round

    @property
    def rate(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rates)

    @property
    def ratio(self) -> float:
        """Median of the ratios of neighbours."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> float:
        """How far the rounds lie apart, as a part of their median."""
        return (max(self.rates) - min(self.rates)) / self.rate

    @property
    def fraction(self) -> float | None:
        """Of the roof."""
        return None if self.roof_rate is None else self.rate / self.roof_rate


@dataclass(frozen=True, slots=True)
class Point:
    """One engine under one number of streams, each of which asks anew when it has its answer. Times in seconds."""

    variant: Variant
    concurrency: int
    rates: list[float]  # output tokens a second in each round
    first_token_p50: float
    first_token_p99: float
    gap_p50: float  # between two tokens of a stream
    gap_p99: float
    check: Check

    @property
    def rate(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rates)


@dataclass(frozen=True, slots=True)
class Report:
    """A whole comparison."""

    model: str
    num_bytes: int  # of the checkpoint
    device: str
    threads: int
    rounds: int
    share: int  # 1: whole workloads; else a part of them
    started: str  # UTC
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    variants: list[Variant]
    left_out: list[str] = field(default_factory=list)  # and why
    roofs: list[Roof] = field(default_factory=list)  # one a round
    loads: list[float] = field(default_factory=list)  # load average before and after
    others: list[float] = field(default_factory=list)  # CPUs that other processes kept busy, in each measured run
    results: list[Result] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    format: str = FORMAT

    @property
    def ok(self) -> bool:
        """Whether every engine's tokens are right."""
        return all(check.ok for check in self.checks)

    @property
    def checks(self) -> list[Check]:
        """Of every engine on everything."""
        return [*(result.check for result in self.results), *(point.check for point in self.points)]

    @property
    def drift(self) -> float | None:
        """How far the machine's memory rate moved between rounds, as a part of its median; None: one round."""
        rates = [roof.bytes_per_second for roof in self.roofs]
        return (max(rates) - min(rates)) / statistics.median(rates) if len(rates) > 1 else None

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))


def load_report(path: Path) -> Report:
    """Read a saved report. Raises ValueError for a file that is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: this is no report of `isotoken bench --json`: {error}") from error
