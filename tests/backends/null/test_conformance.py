"""The null backend passes what of the suite needs no model, and declares the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_suite_passes_with_what_is_excluded(tmp_path: Path) -> None:
    """An exclusion that matched nothing, or whose test passed, would fail the run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "isotoken.conformance"]
    command += ["--backend", "null", "--conformance-report", str(tmp_path / "out.json")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "ISOTOKEN_"))}
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    (target,) = json.loads((tmp_path / "out.json").read_text())["targets"]
    passed = {number for number, found in target["behaviours"].items() if found["outcome"] == "passed"}
    assert {"CON-1", "CON-2", "CON-12", "CON-14", "SEE-3", "INV-16", "INV-18", "INV-19"} <= passed
    assert "LOG-1" not in passed
