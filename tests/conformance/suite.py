"""Run the conformance suite in a process of its own, with the fixture plugin installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FIXTURE = Path(__file__).parent / "fixture"


def run_suite(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `pytest --pyargs isotoken.conformance *args` in `cwd`, where no configuration of ours applies."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pyargs", "isotoken.conformance", *args]
    path = os.pathsep.join([str(FIXTURE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "ISOTOKEN_"))}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**clean, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
