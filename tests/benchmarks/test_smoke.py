"""The benchmarks run: on a tiny model, in a small way, so that they still work when a machine for them is at hand."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from isotoken.api.bench.results import load_report

from .made import report

ROOT = Path(__file__).parents[2]


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
    run(cache, "benchmarks.gpu_check", "--dry-run", "--parts", "throughput", "backends", "--results", str(tmp_path))
    (result,) = tmp_path.glob("cpu-*.json")
    (page,) = tmp_path.glob("cpu-*.html")
    report = json.loads(result.read_text())
    assert report["ok"]
    for workload in ("W1", "W2", "W3", "W4"):
        assert len(report["throughput"][workload]["tok_s"]) == 3
        assert 0 < report["throughput"][workload]["fraction_of_roof"] < 1
    assert report["backends"]["page"] == page.name
    engines = {(v["backend"], v["quantization"]) for v in report["backends"]["report"]["variants"]}
    assert ("torch", None) in engines
    if importlib.util.find_spec("onnxruntime"):
        assert {("onnxruntime", None), ("onnxruntime", "int8"), ("onnxruntime", "int4")} <= engines


def test_a_saved_run_becomes_a_section_a_chart_and_a_page(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmarks.md").write_text("# Benchmarks\n\nkept\n")
    saved = tmp_path / "run.json"
    report().save(saved)
    for _ in range(2):  # written anew in place
        run(cache, "benchmarks.document", str(saved), "--docs", str(tmp_path))
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.startswith("# Benchmarks\n\nkept\n")
    assert page.count("## Backends") == 1
    assert "| onnxruntime float32 int8 | ✓ float32's tokens (100 judged) | 150 |" in page
    chart = ElementTree.fromstring((tmp_path / "images" / "backends.svg").read_text())
    assert len(list(chart.iter("{http://www.w3.org/2000/svg}title"))) > 4
    assert load_report(tmp_path / "benchmarks" / "backends.json") == report()
    assert (tmp_path / "benchmarks" / "backends.html").read_text().startswith("<!DOCTYPE html>")


def test_schedulers_are_compared(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmarks.md").write_text("# Benchmarks\n\nkept\n")
    arguments = ["--size", "tiny", "--rounds", "1", "--threads", "1", "--share", "8", "--docs", str(tmp_path)]
    for _ in range(2):  # written anew in place
        run(cache, "benchmarks.schedulers", *arguments)
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.startswith("# Benchmarks\n\nkept\n")
    assert page.count("| `continuous` |") == page.count("## Schedulers") == 1
    assert (tmp_path / "images" / "schedulers.svg").read_text().startswith("<?xml")
