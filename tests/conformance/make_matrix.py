"""Run the suite and the levels on the built-in backends; write docs/conformance/ and the matrix drawn from it.

`python tests/conformance/make_matrix.py [BACKEND ... | levels | page]`: only these parts anew; the page always.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from isotoken.conformance.levels_command import SIDES
from isotoken.conformance.levels_command import main as measure_levels
from isotoken.conformance.matrix import main as draw_matrix

DOCS = Path(__file__).resolve().parents[2] / "docs"
DATA = DOCS / "conformance"
LEVELS = DATA / "levels.json"
BACKENDS: dict[str, tuple[str, ...]] = {
    "reference": ("--dtype", "float64", "--dtype", "float32"),
    "native": ("--dtype", "float32", "--dtype", "bfloat16", "--quantization", "all"),
    "torch": ("--dtype", "float32", "--dtype", "bfloat16", "--dtype", "float16"),
    "onnxruntime": ("--dtype", "float32", "--quantization", "all"),
}
NOTE = (
    "**No TensorRT engine has been built or run by this project so far.** The TensorRT backend is checked against the "
    "real API's names and types, and the suite passes through a stand-in that runs the same graph with ONNX Runtime; "
    "that says nothing about TensorRT's kernels, so it has no column here. All that is shown was run on a CPU: nothing "
    "on CUDA yet."
)


def report(backend: str, choice: tuple[str, ...], path: Path, *more: str) -> int:
    """Run the suite for one backend on the CPU; exit status."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "isotoken.conformance"]
    options = ["--backend", backend, "--device", "cpu", *choice, "--conformance-report", str(path), *more]
    return subprocess.run([*command, *options], check=False).returncode


def files(folder: Path) -> dict[str, Path]:
    """Where the Markdown, the picture and the page go."""
    return {
        "--output": folder / "conformance.md",
        "--picture": folder / "images" / "conformance.svg",
        "--html": folder / "conformance.html",
    }


def draw(folder: Path) -> None:
    """Draw the matrix from the committed reports and levels."""
    written = [word for name, path in files(folder).items() for word in (name, str(path))]
    reports = [str(DATA / f"{name}.json") for name in BACKENDS]
    draw_matrix([*reports, "--levels", str(LEVELS), "--note", NOTE, *written])


def main(parts: list[str]) -> int:
    """Measure what is asked for, all if nothing is; 1 if anything does not hold."""
    DATA.mkdir(exist_ok=True)
    wanted = parts or [*BACKENDS, "levels"]
    failed = [name for name in BACKENDS if name in wanted and report(name, BACKENDS[name], DATA / f"{name}.json")]
    if "levels" in wanted:
        sides = [word for side in SIDES for word in ("--backend", side)]
        failed += ["levels"] if measure_levels([*sides, "--output", str(LEVELS)]) else []
    draw(DOCS)
    print(f"amiss: {', '.join(failed)}" if failed else "all is well")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
