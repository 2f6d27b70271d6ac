"""Facts of the machine and of what is installed, for a report to be worth keeping."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import psutil

LIBRARIES = ("isotoken", "numpy", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "transformers")


def machine_facts(device: str = "cpu") -> dict[str, str]:
    """Say what this runs on, by name."""
    facts = {
        "processor": _processor(),
        "CPUs": str(num_cpus()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    if device != "cpu":
        facts["device"] = _gpu_name(device)
    return facts


def versions() -> dict[str, str]:
    """Versions of isotoken and of the runtimes that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def num_cpus() -> int:
    """CPUs that this process may run on, two threads of a core counted once."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(allowed, psutil.cpu_count(logical=False) or allowed), 1)


def load_average() -> float:
    """Processes that wanted to run over the last minute, this one included."""
    return psutil.getloadavg()[0]


class Others:
    """What other processes take meanwhile. A context manager; afterwards `cpus` is how many CPUs they kept busy.

    `ours` are ids of processes that are not others besides this one.
    """

    def __init__(self, *ours: int) -> None:
        self._ours = [psutil.Process(), *map(psutil.Process, ours)]
        self.cpus = 0.0

    def __enter__(self) -> Others:
        self._start = time.perf_counter(), self._busy()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._start[0]
        self.cpus = max(self._busy() - self._start[1], 0.0) / max(seconds, 1e-9)

    def _busy(self) -> float:
        """CPU seconds of everyone else since the machine started."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
        own = sum(used.user + used.system for used in (process.cpu_times() for process in self._ours))
        return float(sum(times) - idle - own)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_name(device: str) -> str:
    try:
        import torch  # noqa: PLC0415  (where there is a GPU to measure, there is torch or a runtime that brought it)

        return str(torch.cuda.get_device_name(device))
    except (ImportError, RuntimeError, AssertionError):
        return device
