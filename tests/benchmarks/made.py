"""Made-up results, for what is done with results."""

from __future__ import annotations

from typing import Any

from isotoken.api.bench.checks import Check, Verdict
from isotoken.api.bench.results import Point, Report, Result, Variant
from isotoken.api.bench.roof import Roof

TORCH, ORT = Variant("torch", "float32"), Variant("onnxruntime", "float32", "int8")
RIGHT = Check("equal", True, "0123456789abcdef", Verdict(100, 90, 0, 10, 0, 0))
WRONG = Check("equal", False, "fedcba9876543210", Verdict(100, 90, 7, 10, 0, 0))


def result(
    variant: Variant, rates: list[float], base: list[float], roof_rate: float | None = 200.0, **more: Any
) -> Result:
    values: dict[str, Any] = {
        "workload": "W1",
        "variant": variant,
        "figure": "decode",
        "rates": rates,
        "ratios": [mine / theirs for mine, theirs in zip(rates, base, strict=True)],
        "check": RIGHT,
        "roof": "memory",
        "roof_rate": roof_rate,
        "first_tokens": [0.05] * len(rates),
    }
    return Result(**values | more)


def point(variant: Variant, concurrency: int, rate: float, check: Check = RIGHT) -> Point:
    return Point(variant, concurrency, [rate, rate], 0.02, 0.2, 0.005, 0.05, check)


def report(**more: Any) -> Report:
    base, fast = [100.0, 110.0, 90.0], [150.0, 160.0, 140.0]
    values: dict[str, Any] = {
        "model": "a <model> & more",
        "num_bytes": 17_000_000,
        "device": "cpu",
        "threads": 2,
        "rounds": 3,
        "share": 1,
        "started": "2026-01-01 00:00 UTC",
        "command": "isotoken bench",
        "machine": {"processor": "Some Processor", "CPUs": "2"},
        "versions": {"isotoken": "0.1.0"},
        "variants": [TORCH, ORT],
        "left_out": ["torch float32 int8: torch does not offer it"],
        "roofs": [Roof(40e9, {"float32": 1e11, "int8": 4e11}), Roof(44e9, {"float32": 1.1e11})],
        "loads": [0.5, 1.5],
        "others": [0.1, 0.3, 0.2],
        "results": [result(TORCH, base, base), result(ORT, fast, base, None)],
        "points": [point(v, count, 100.0 * count) for count in (1, 2, 8) for v in (TORCH, ORT)],
    }
    return Report(**values | more)
