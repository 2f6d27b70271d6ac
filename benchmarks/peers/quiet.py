"""How much of the machine others used while something was measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil


class Others:
    """A context manager; afterwards `cpus` is the number of CPUs that other processes than these kept busy."""

    def __init__(self, ours: Sequence[int]) -> None:
        self._ours = [psutil.Process(pid) for pid in ours]
        self.cpus = 0.0

    def __enter__(self) -> Others:
        self._start = time.perf_counter(), self._busy_of_others()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._start[0]
        self.cpus = max(self._busy_of_others() - self._start[1], 0.0) / max(seconds, 1e-9)

    def _busy_of_others(self) -> float:
        """Seconds of CPU time since the machine started."""
        times = psutil.cpu_times()
        everyone = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        mine = sum(used.user + used.system for used in (process.cpu_times() for process in self._ours))
        return float(everyone - mine)
