"""CPU time and memory of the server's process and of its engines'."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import psutil
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class ProcessMetrics(Collector):
    """Looks at the processes when asked."""

    def __init__(self, engine_pids: Callable[[], Iterable[int]]) -> None:
        self._engine_pids = engine_pids
        self._server = Processes()
        self._engines = Processes()

    def collect(self) -> Iterator[Metric]:
        """Yield what they use, by what they are."""
        seconds = CounterMetricFamily("llm_cpu_seconds", "CPU time used", labels=["process"])
        memory = GaugeMetricFamily("llm_resident_memory_bytes", "Memory in use", labels=["process"])
        for name, meter, pids in (
            ("server", self._server, [os.getpid()]),
            ("engine", self._engines, self._engine_pids()),
        ):
            used, resident = meter.read(pids)
            seconds.add_metric([name], used)
            memory.add_metric([name], resident)
        yield from (seconds, memory)


class Processes:
    """Some processes together. The CPU time of those that are gone stays counted, as far as it was seen."""

    def __init__(self) -> None:
        self._gone = 0.0
        self._seconds: dict[int, float] = {}

    def read(self, pids: Iterable[int]) -> tuple[float, int]:
        """Return the CPU seconds that all have used so far, and the bytes that those alive hold."""
        resident = 0
        present: dict[int, float] = {}
        for pid in pids:
            try:
                process = psutil.Process(pid)
                times = process.cpu_times()
                resident += process.memory_info().rss
            except psutil.Error:  # it ends just now
                continue
            present[pid] = times.user + times.system
        self._gone += sum(seconds for pid, seconds in self._seconds.items() if pid not in present)
        self._seconds = present
        return self._gone + sum(present.values()), resident
