"""The whole conformance suite passes through the fake TensorRT, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import FAKE


def conform(cwd: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the suite against the backend on the fake; what it printed and its report."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "ISOTOKEN_"))}
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "isotoken_fake_tensorrt", "-q",
            "--no-header", "--pyargs", "isotoken.conformance", "--backend", "tensorrt",
            "--conformance-report", "out.json", "--conformance-option", f"engine_cache={cwd / 'cache'}", *arguments,
        ],
        cwd=cwd,
        env=plain | {"PYTHONPATH": str(FAKE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    return done, json.loads((cwd / "out.json").read_text()) if done.returncode == 0 else {}


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_the_whole_suite_passes(tmp_path: Path) -> None:
    done, report = conform(tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    (target,) = report["targets"]
    outcomes = {number: found["outcome"] for number, found in target["behaviours"].items()}
    assert set(outcomes.values()) == {"passed", "absent"}
    absent = sorted(number for number, outcome in outcomes.items() if outcome == "absent")
    # One block in several tables, and blocks of other sizes: a row is a request's own, and prefixes are copied.
    assert absent == ["CON-11", "INV-4"]
    assert target["numbers"]["decided"] > 15_000
    assert target["numbers"]["max_logits_error"] < 2e-5


@pytest.mark.slow
def test_refitted_engines_without_recordings_conform(tmp_path: Path) -> None:
    """A cross-section of the suite with every option turned round."""
    options = ("refit=on", "cuda_graphs=off", "verify_tokens=2", "timing_cache=off")
    pairs = [word for option in options for word in ("--conformance-option", option)]
    done, _ = conform(tmp_path, *pairs, "-k", "ragged or goldens or verification or at_random")
    assert done.returncode == 0, done.stdout[-6000:]
