"""Run the suite on the built-in backends and write docs/conformance/*.json and docs/conformance.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from isotoken.conformance.matrix import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
BACKENDS = {"reference": ("float64", "float32"), "torch": ("float32", "bfloat16", "float16")}


def report(backend: str, dtypes: tuple[str, ...], path: Path) -> int:
    """Run the suite for one backend on the CPU; exit status."""
    chosen = [word for dtype in dtypes for word in ("--dtype", dtype)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "isotoken.conformance"]
    options = ["--backend", backend, "--device", "cpu", *chosen, "--conformance-report", str(path)]
    return subprocess.run([*command, *options], check=False).returncode


if __name__ == "__main__":
    names = sys.argv[1:] or list(BACKENDS)
    (DOCS / "conformance").mkdir(exist_ok=True)
    failed = [n for n in names if report(n, BACKENDS[n], DOCS / "conformance" / f"{n}.json")]
    paths = [str(DOCS / "conformance" / f"{name}.json") for name in BACKENDS]
    main([*paths, "--output", str(DOCS / "conformance.md")])
    sys.exit(f"the suite fails on {', '.join(failed)}" if failed else 0)
