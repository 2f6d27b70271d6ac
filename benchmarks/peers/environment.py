"""A peer's own environment, and its model, converted there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = (
    "onnxruntime-genai>=0.18",
    "onnxruntime",
    "onnx",
    "onnx-ir",
    "torch",  # its converter's
    "transformers",  # likewise
)

PRECISIONS = {"float32": "fp32", "int8": "int8", "int4": "int4"}
"""Ours -> what the converter calls it."""

NEAREST = ("algo_config=default", "block_size=32", "accuracy_level=4", "is_symmetric=true")
"""The converter's options that come nearest to isotoken's int8 and int4: round to nearest, symmetric, blocks of 32.

Its scales may be negative, which makes its int4 a little finer than ours: about 8.6% instead of 9.2% of a weight's
standard deviation (kernels/cpu/quantize.py says why we do without).
"""


def set_up(folder: Path) -> Path:
    """Make a virtual environment with onnxruntime-genai in it; return its Python. Raises CalledProcessError."""
    venv.create(folder, with_pip=True, clear=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([str(python), "-m", "pip", "install", *REQUIREMENTS], check=True)
    return python


def convert(python: Path, model: Path, precision: str, folder: Path, *, pruned: bool = False) -> Path:
    """Return `model` as onnxruntime-genai wants it, under `folder`, made now if it is not there.

    `pruned`: a prompt's logits are computed for the last position only. That is faster, and wrong for rows that end
    before others of their batch. Raises RuntimeError with the end of the converter's output.
    """
    target = folder / f"{model.name}-genai-{precision}{'-pruned' if pruned else ''}"
    if (target / "genai_config.json").exists():
        return target
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(model), "-o", str(partial)]
    command += ["-e", "cpu", "-p", PRECISIONS[precision], "-c", str(folder / "hf-cache")]
    options = [*(NEAREST if precision != "float32" else ()), *(["prune_lm_head=true"] if pruned else [])]
    command += ["--extra_options", *options] if options else []
    print(f"onnxruntime-genai's builder makes {target.name}", file=sys.stderr)
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=offline)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-3000:]}")
    partial.rename(target)
    return target
