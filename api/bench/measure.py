"""Measure engines in turns: every round runs all of them, so that what the machine does meanwhile hits them alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .checks import Check
from .engines import Run, speed
from .results import Point, Result, Variant
from .roof import Roof, roof_kind
from .session import Bench
from .workloads import Workload

T = TypeVar("T")

Measured = dict[Variant, tuple[list[Run], Check]]


def run_workload(bench: Bench, name: str, rounds: int) -> list[Result]:
    """Warm up and check, then measure every engine in each round, each time in another order.

    An engine that fails is left out from then on, see Bench.left_out.
    """
    workload = bench.make_workload(name)
    measured = _in_turns(bench, workload, rounds, measure_roof=True)
    roof = Roof.best(bench.roofs)  # of all workloads so far: the machine does not change, but who else uses it does
    base = next(iter(measured.values()))[0]
    return [
        make_result(bench, workload, variant, runs, check, base=base, roof=roof)
        for variant, (runs, check) in measured.items()
    ]


def run_streams(bench: Bench, concurrency: int, rounds: int) -> list[Point]:
    """Measure throughput and latency with this many streams, each of which asks anew when it has its answer."""
    measured = _in_turns(bench, bench.make_streams(concurrency), rounds, in_flight=concurrency)
    return [_point(variant, concurrency, runs, check) for variant, (runs, check) in measured.items()]


def _in_turns(
    bench: Bench, workload: Workload, rounds: int, *, in_flight: int = 0, measure_roof: bool = False
) -> Measured:
    checks: dict[Variant, Check] = {}
    runs: dict[Variant, list[Run]] = {variant: [] for variant in bench.engines}
    for variant in list(bench.engines):
        with bench.leaving_out(variant, workload):
            checks[variant] = bench.check(variant, workload, in_flight)
    for index in range(rounds):
        if measure_roof:
            bench.measure_roof()
        for variant in turned(list(bench.engines), index):
            with bench.leaving_out(variant, workload):
                run = bench.run(variant, workload, in_flight)
                checks[variant] = bench.hold(variant, workload, run, checks[variant])
                runs[variant].append(run)
    return {variant: (runs[variant], checks[variant]) for variant in bench.engines}


def turned(items: Sequence[T], by: int) -> list[T]:
    """The items in an order of its own for each round, so that nobody always follows the same neighbour."""
    order = list(items)[:: 1 if by % 2 == 0 else -1]
    start = (by // 2) % max(len(order), 1)
    return order[start:] + order[:start]


def make_result(
    bench: Bench, workload: Workload, variant: Variant, runs: list[Run], check: Check, *, base: list[Run], roof: Roof
) -> Result:
    """Sum up one engine's rounds. `base` are the runs of the engine that ratios are to, round by round."""
    rates = [speed(workload, run) for run in runs]
    return Result(
        workload=workload.name,
        variant=variant,
        figure=workload.figure,
        rates=rates,
        ratios=[mine / speed(workload, theirs) for mine, theirs in zip(rates, base, strict=True)],
        check=check,
        roof=roof_kind(workload),
        roof_rate=bench.model.roof_rate(workload, roof, variant.dtype, variant.quantization),
        first_tokens=[statistics.mean(run.first_tokens()) for run in runs],
    )


def _point(variant: Variant, concurrency: int, runs: list[Run], check: Check) -> Point:
    first = np.percentile([seconds for run in runs for seconds in run.first_tokens()], (50, 99))
    gaps = np.percentile([seconds for run in runs for seconds in run.gaps()] or [0.0], (50, 99))
    return Point(
        variant=variant,
        concurrency=concurrency,
        rates=[run.output_rate for run in runs],
        first_token_p50=float(first[0]),
        first_token_p99=float(first[1]),
        gap_p50=float(gaps[0]),
        gap_p99=float(gaps[1]),
        check=check,
    )
