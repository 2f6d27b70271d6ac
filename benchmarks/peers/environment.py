"""A peer's own environment, and its model, converted there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path


def set_up(folder: Path, requirements: Sequence[str]) -> Path:
    """Make a virtual environment with a peer in it; return its Python. Raises CalledProcessError."""
    venv.create(folder, with_pip=True, clear=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([str(python), "-m", "pip", "install", *requirements], check=True)
    return python


def convert_once(target: Path, proof: str, command: Callable[[Path], Sequence[str]]) -> Path:
    """Return a converted model's folder, in which `proof` lies; made by command(folder) if it is not there.

    Raises RuntimeError with the end of the converter's output.
    """
    if (target / proof).exists():
        return target
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    print(f"the peer's converter makes {target.name}", file=sys.stderr)
    words = [*command(partial)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=offline)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{(done.stdout + done.stderr)[-3000:]}")
    partial.rename(target)
    return target


def is_real_time() -> bool:
    """Whether this process, and so those that it starts, run at real-time priority, as `chrt -f 10` gives it."""
    policy = getattr(os, "sched_getscheduler", lambda _: None)(0)
    return policy is not None and policy in (os.SCHED_FIFO, os.SCHED_RR)
