"""A peer's process, seen from here: a Subject of the benchmarks like any other."""

from __future__ import annotations

import json
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
from isotoken.api.bench.engines import Run
from isotoken.api.bench.workloads import Workload

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Way:
    """One of a peer's ways to run a workload: what its worker is told when it loads, and when it runs."""

    label: str
    load: Settings
    run: Settings

    def __str__(self) -> str:
        return self.label


class Peer(ABC):
    """An engine under its own Python. Raises RuntimeError with what went wrong over there."""

    name: str  # as tables call it
    worker: Path  # the program that runs there, see worker_loop.py

    def __init__(self, python: Path, *, threads: int) -> None:
        self.way: Way | None = None
        self.cpu_seconds = 0.0  # of the last run, all threads
        self.versions: dict[str, str] = {}
        self._threads = threads
        self._loaded: Settings | None = None
        self._process = subprocess.Popen(
            [str(python), str(self.worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )

    @classmethod
    @abstractmethod
    def open(cls, python: Path, model: Path, precision: str, cache: Path, *, threads: int) -> Self:
        """Convert the model, under `cache`, where it has to be and that has not been done, and start the process."""

    @abstractmethod
    def ways(self, workload: Workload) -> list[Way]:
        """All that could be the fastest for a workload and give the right tokens."""

    @abstractmethod
    def variations(self, way: Way, spinnings: Iterable[str]) -> list[Way]:
        """What is worth trying besides where a way is near the fastest."""

    @property
    def pids(self) -> list[int]:
        """The worker's process and those that it has started."""
        return [self._process.pid, *(child.pid for child in psutil.Process(self._process.pid).children(recursive=True))]

    def load(self, way: Way) -> None:
        """Load the model as a way wants it, unless it is."""
        if self._loaded != way.load:
            self._loaded = None
            self.versions = self._ask(op="load", threads=self._threads, **dict(way.load))["versions"]
            self._loaded = way.load

    def run(self, workload: Workload) -> Run:
        """Run it in the way that `way` says."""
        if self.way is None:
            raise ValueError("choose a way first")
        self.load(self.way)
        tasks = [[task.prompt, task.num_tokens] for task in workload.tasks]
        reply = self._ask(op="run", tasks=tasks, **dict(self.way.run))
        self.cpu_seconds = reply["cpu_seconds"]
        return Run(reply["seconds"], reply["tokens"], reply["token_times"])

    def _ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name}: the process ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}")
        return reply

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
