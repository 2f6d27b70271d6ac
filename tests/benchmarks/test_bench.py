"""A whole comparison, from Python, from the command line and from pytest, on a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.bench.results import Variant, load_report
from isotoken.api.bench.run import Plan, installed, run
from isotoken.core.types import Unsupported
from isotoken.plugins.manager import Plugins

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {"rounds": 2, "share": 8, "threads": 1}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOTOKEN_BENCH_CACHE", str(cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("environment")
def test_engines_are_measured_in_turns_and_checked(plugins: Plugins) -> None:
    told: list[str] = []
    plan = Plan(
        model="random-tiny",
        backends=["torch", "reference"],
        dtypes=["float32", "torch:bfloat16"],
        workloads=["W1", "W2", "prefill"],
        concurrencies=[2],
        **SMALL,
    )
    report = run(plan, plugins, told.append)
    assert [v.label for v in report.variants] == ["torch float32", "torch bfloat16", "reference float32"]
    assert report.ok and not report.left_out
    assert len(told) == plan.num_steps(3)
    measured = [line.removeprefix("W2: measuring ") for line in told if line.startswith("W2: measuring ")]
    labels = [v.label for v in report.variants]
    assert measured == [*labels, *labels[::-1]]
    checked = max(told.index(line) for line in told if line.startswith("W2: checking"))
    assert checked < told.index(f"W2: measuring {labels[0]}")
    assert [(r.workload, r.variant) for r in report.results] == [
        (name, variant) for name in ("W1", "W2", "prefill") for variant in report.variants
    ]
    for result in report.results:
        assert len(result.rates) == len(result.ratios) == 2 and min(result.rates) > 0
        assert result.fraction is not None and result.fraction > 0
        assert result.variant != report.variants[0] or result.ratios == [1.0, 1.0]
    hashes = {r.check.tokens for r in report.results if r.workload == "W2" and r.variant.dtype == "float32"}
    assert len(hashes) == 1
    assert len(report.roofs) == 3 * 2
    assert len(report.others) == 3 * 4 * 2 and min(report.others) >= 0
    for point in report.points:
        assert point.concurrency == 2
        assert 0 < point.gap_p50 <= point.gap_p99 and 0 < point.first_token_p50 <= point.first_token_p99


@pytest.mark.usefixtures("environment")
def test_what_a_backend_does_not_offer_is_left_out_and_said(plugins: Plugins) -> None:
    plan = Plan(
        model="random-tiny",
        backends=["reference"],
        dtypes=["bfloat16", "float32"],
        workloads=["W1"],
        concurrencies=[],
        **SMALL,
    )
    report = run(plan, plugins)
    assert report.variants == [Variant("reference", "float32")]
    assert report.left_out[0].startswith("reference bfloat16: backend reference does not compute in 'bfloat16'")
    nothing = Plan(model="random-tiny", backends=["reference"], dtypes=["float16"], **SMALL)
    with pytest.raises(Unsupported, match="nothing is left to be measured: reference float16"):
        run(nothing, plugins)


@pytest.mark.usefixtures("environment")
def test_a_wrong_engine_makes_the_report_wrong(plugins: Plugins) -> None:
    plan = Plan(
        model="random-tiny",
        backends=["torch", "wrong"],
        dtypes=["float32"],
        concurrencies=[1],
        workloads=["W1"],
        **SMALL,
    )
    report = run(plan, plugins)
    assert [result.check.ok for result in report.results] == [True, False]
    assert [point.check.ok for point in report.points] == [True, False]
    assert not report.ok


@pytest.mark.usefixtures("environment")
def test_an_engine_that_fails_is_left_out_and_the_others_go_on(plugins: Plugins) -> None:
    plan = Plan(
        model="random-tiny",
        backends=["fragile", "torch"],
        dtypes=["float32"],
        workloads=["W1", "prefill"],
        concurrencies=[],
        **SMALL,
    )
    report = run(plan, plugins)
    assert [(r.workload, r.variant.backend) for r in report.results] == [
        ("W1", "fragile"),
        ("W1", "torch"),
        ("prefill", "torch"),
    ]
    assert report.left_out == ["fragile float32: failed in prefill: RuntimeError: too long for me"]
    assert report.results[-1].ratio == 1
    assert [variant.backend for variant in report.variants] == ["fragile", "torch"]
    with pytest.raises(RuntimeError, match="too long for me"):
        run(replace(plan, backends=["fragile"], workloads=["prefill"]), plugins)


def test_an_engine_is_every_combination_asked_for(plugins: Plugins) -> None:
    plan = Plan(
        model="",
        backends=["torch", "onnxruntime"],
        dtypes=["float32", "torch:bfloat16"],
        quantizations=["none", "onnxruntime:int8"],
        schedulers=["continuous", "static"],
    )
    assert [variant.label for variant in plan.variants(plugins)] == [
        "torch float32",
        "torch float32, static",
        "torch bfloat16",
        "torch bfloat16, static",
        "onnxruntime float32",
        "onnxruntime float32, static",
        "onnxruntime float32 int8",
        "onnxruntime float32 int8, static",
    ]
    assert "reference" not in installed(plugins) and "torch" in installed(plugins)


@pytest.mark.usefixtures("environment")
def test_the_command_prints_tables_and_writes_page_and_json(command: Run, tmp_path: Path) -> None:
    page, saved = tmp_path / "page.html", tmp_path / "run.json"
    arguments = ["bench", "random-tiny", "--backend", "torch", "--dtype", "float32", "--quick", "--num-threads", "1"]
    arguments += ["--scheduler", "continuous", "--scheduler", "naive", "--workload", "W2", "--concurrency", "1,2"]
    done = command(*arguments, "--html", str(page), "--json", str(saved))
    assert done.returncode == 0, done.stderr
    for words in ("W2: 32 requests", "torch float32, naive", "✓ float32's tokens", "Streams", "load average"):
        assert words in done.stdout
    assert "loading torch float32" in done.stderr
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert load_report(saved).command.startswith("isotoken bench random-tiny")
    assert load_report(saved).rounds == 1
    last = tmp_path / "last.json"
    arguments = [*arguments[:7], "--workload", "W2", "--concurrency", "none", "--rounds", "2", "--quick"]
    again = command(*arguments, "--compare", str(saved), "--json", str(last))
    assert again.returncode == 0, again.stderr
    assert load_report(last).rounds == 2, "--quick overrode what was asked for"
    assert f"Since {saved}" in again.stdout.replace("\n", "")


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "matplotlib", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from isotoken.api.cli import main
sys.exit(main())
"""


@pytest.mark.usefixtures("environment")
def test_neither_torch_nor_matplotlib_is_needed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["bench", "random-tiny", "--backend", "reference", "--dtype", "float32", "--workload", "W1", "--quick"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", BLOCKED, *arguments, "--concurrency", "1", "--html", str(page)],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "reference float32" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--workload", "W9"), "W1, W2, W3, W4, prefill, none"),
        (("--concurrency", "1,x"), "'1,x' is not of the form 1,2,4"),
        (("--concurrency", "0"), "'0' is not of the form"),
        (("--backend", "troch"), "did you mean 'torch'"),
        (("--compare", "/nowhere.json"), "/nowhere.json"),
        (("random-7b",), "random-7b"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_measured(command: Run, arguments: tuple[str, ...], words: str) -> None:
    done = command("bench", *arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_pytest_groups_by_workload_saves_and_compares(cache: Path, tmp_path: Path) -> None:
    saved = tmp_path / "run.json"
    arguments = ["--backend", "torch", "--backend", "reference", "--dtype", "float32", "--workload", "W2"]
    arguments += ["--bench-cache", str(cache), "--bench-size", "tiny", "--bench-share", "8", "--bench-rounds", "2"]
    first = _pytest(*arguments, "--workload", "prefill", "--benchmark-json", str(saved))
    assert "benchmark 'W2': 2 tests" in first and "benchmark 'prefill': 2 tests" in first
    found = json.loads(saved.read_text())
    assert [benchmark["group"] for benchmark in found["benchmarks"]] == ["W2", "W2", "prefill", "prefill"]
    for benchmark in found["benchmarks"]:
        extra = benchmark["extra_info"]
        assert extra["isotoken"]["check"]["ok"] and extra["tok/s"] > 0 and len(extra["roofs"]) == 2
    assert found["machine_info"]["isotoken"]["versions"]["torch"]
    second = _pytest(*arguments, "--bench-compare", str(saved))
    assert f"Since {saved}" in second.replace("\n", "")


def test_pytest_fails_a_backend_with_wrong_tokens(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong_tokens.dist-info").mkdir()
    (tmp_path / "wrong_tokens.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: wrong-tokens\nVersion: 1\n"
    )
    (tmp_path / "wrong_tokens.dist-info" / "entry_points.txt").write_text("[isotoken]\nwrong = wrong_tokens\n")
    (tmp_path / "wrong_tokens.py").write_text((Path(__file__).parent / "faulty.py").read_text())
    arguments = ["--backend", "wrong", "--dtype", "float32", "--workload", "W1", "--bench-cache", str(cache)]
    output = _pytest(*arguments, "--bench-size", "tiny", "--bench-share", "8", code=1, path=tmp_path)
    assert "WRONG" in output and "engines compared" not in output


def _pytest(*arguments: str, code: int = 0, path: Path | None = None) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = inherited | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "benchmarks",
            "-q",
            "-p",
            "no:cacheprovider",
            "--bench-threads",
            "1",
            *arguments,
        ],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
