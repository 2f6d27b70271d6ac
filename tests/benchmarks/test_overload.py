"""The overload benchmark runs, counts what it says, and draws it; the isolation one knows a coin from a clock."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.isolation import guess  # noqa: E402
from benchmarks.overload import Load, verdicts  # noqa: E402


@pytest.mark.slow
def test_a_tiny_load_gives_a_whole_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.overload", "--seconds", "0.7", "--factors", "3", "--max-wait", "0.3"]
    done = subprocess.run(
        [*command, "--docs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode in (0, 1), done.stderr  # 1: something was not kept to, as on a busy machine
    report = json.loads((tmp_path / "benchmarks" / "overload.json").read_text())
    alone, bound, most, unqueued = report["loads"]
    assert alone["refused"] == 0
    for load in (most, unqueued):
        assert load["refused"] > 0
        assert load["accepted"] > 0
    assert all(load["failed"] == 0 for load in report["loads"])
    assert bound["first_token_p99"] > alone["first_token_p50"] > 0
    assert "<svg" in (tmp_path / "images" / "overload.svg").read_text()
    assert "overload.svg" in (tmp_path / "tenants.md").read_text()


def load(first_token_p99: float, refusal_p99: float | None = 1.0, failed: int = 0, grows: float = 0.0) -> Load:
    memory = [100.0 + grows * i for i in range(10)]
    return Load("x", 10.0, 5.0, 5.0, failed, 1.0, first_token_p99, 1.0, refusal_p99, memory)


def test_verdicts_are_about_the_largest_load() -> None:
    alone, bound, good, unqueued = load(10), load(100), load(149), load(14)
    assert all(verdicts([alone, bound, load(900), good, unqueued]).values())
    for bad in (load(151), load(100, refusal_p99=11.0), load(100, failed=1), load(100, grows=5.0)):
        assert list(verdicts([alone, bound, bad, unqueued]).values()).count(False) == 1
    for bad in (load(16), load(10, refusal_p99=11.0), load(10, failed=1)):
        assert list(verdicts([alone, bound, good, bad]).values()).count(False) == 1


def test_a_clock_is_told_from_a_coin() -> None:
    draw = random.Random(1)
    times = [draw.gauss(10, 1) for _ in range(400)]
    assert not guess("coin", times[:200], times[200:]).tells
    assert guess("clock", [t - 1 for t in times[:200]], times[200:]).tells
    assert guess("clock", [1.0] * 50, [2.0] * 50).right == 1.0
