"""The measurement of recovery does what it measures."""

from __future__ import annotations

from pathlib import Path

from benchmarks import recovery


def test_everything_is_measured(tmp_path: Path) -> None:
    times = recovery.measure("", 60, tmp_path)
    assert len(times) == 6 and all(value > 0 for value in times.values())
