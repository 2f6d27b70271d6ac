"""The benchmarks run: on a tiny model, in a small way, so that they still work when a machine for them is at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


def run(cache: Path, *arguments: str) -> str:
    environment = os.environ | {"ISOTOKEN_BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_gpu_check_runs_dry(cache: Path, tmp_path: Path) -> None:
    run(cache, "benchmarks.gpu_check", "--dry-run", "--parts", "throughput", "--results", str(tmp_path))
    (result,) = tmp_path.glob("cpu-*.json")
    report = json.loads(result.read_text())
    assert report["ok"]
    for workload in ("W1", "W2", "W3", "W4"):
        assert len(report["throughput"][workload]["tok_s"]) == 3
        assert 0 < report["throughput"][workload]["fraction_of_roof"] < 1


def test_schedulers_are_compared(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmarks.md").write_text("# Benchmarks\n\nkept\n")
    arguments = ["--size", "tiny", "--rounds", "1", "--threads", "1", "--share", "8", "--docs", str(tmp_path)]
    for _ in range(2):  # written anew in place
        run(cache, "benchmarks.schedulers", *arguments)
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.startswith("# Benchmarks\n\nkept\n")
    assert page.count("| `continuous` |") == page.count("## Schedulers") == 1
    assert (tmp_path / "images" / "schedulers.svg").read_text().startswith("<?xml")
