"""The peer's process, seen from here: a Subject of the benchmarks like any other."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotoken.api.bench.engines import Run
from isotoken.api.bench.workloads import Workload

WORKER = Path(__file__).with_name("genai_worker.py")
MAX_BATCH = 64


@dataclass(frozen=True, slots=True)
class Way:
    """One of the peer's ways to run a workload."""

    name: str  # see genai_worker.py
    batch: int
    spinning: bool

    def __str__(self) -> str:
        return f"{self.name} of {self.batch}" + (", spinning" if self.spinning else "")


def ways(workload: Workload, spinning: bool) -> list[Way]:
    """All that could be the fastest for a workload."""
    count = len(workload.tasks)
    batches = sorted({min(size, count) for size in (16, 32, 64)})
    found = [Way(name, batch, spinning) for name in ("generator", "engine") for batch in batches]
    if workload.num_distinct_prompt_tokens < workload.num_prompt_tokens:
        found.append(Way("shared", 1, spinning))
    return found


class Genai:
    """onnxruntime-genai on a folder that its converter wrote. Raises RuntimeError with what went wrong over there."""

    def __init__(self, python: Path, folder: Path, *, threads: int) -> None:
        self.name = "onnxruntime-genai"
        self.way: Way | None = None
        self._folder, self._threads = folder, threads
        self._process = subprocess.Popen(
            [str(python), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        self._spinning = False
        try:
            self.versions = self._load()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self._process.pid

    def _load(self) -> dict[str, str]:
        reply = self._ask(
            op="load", folder=str(self._folder), threads=self._threads, max_batch=MAX_BATCH, spinning=self._spinning
        )
        versions: dict[str, str] = reply["versions"]
        return versions

    def run(self, workload: Workload) -> Run:
        """Run it in the way that `way` says."""
        if self.way is None:
            raise ValueError("choose a way first")
        if self.way.spinning != self._spinning:
            self._spinning = self.way.spinning
            self._load()
        tasks = [[task.prompt, task.num_tokens] for task in workload.tasks]
        reply = self._ask(op="run", way=self.way.name, batch=self.way.batch, tasks=tasks)
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
