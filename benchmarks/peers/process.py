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
    spinning: str = "off"  # likewise
    pruned: bool = False  # see environment.convert

    def __str__(self) -> str:
        words = [f"{self.name} of {self.batch}", *["pruned"] * self.pruned, f"spinning {self.spinning}"]
        return ", ".join(words)


def ways(workload: Workload, *, pruned: bool = False) -> list[Way]:
    """All that could be the fastest for a workload; with pruned logits those that work and give the right tokens."""
    count = len(workload.tasks)
    batches = sorted({min(size, count) for size in (16, 32, 64)})
    if pruned and len({len(task.prompt) for task in workload.tasks}) > 1:
        batches = []
    apis = ("generator",) if pruned else ("generator", "engine")  # the Engine refuses such a model
    found = [Way(name, batch, pruned=pruned) for name in apis for batch in batches]
    if workload.num_distinct_prompt_tokens < workload.num_prompt_tokens:
        found.append(Way("shared", 1, pruned=pruned))
    return found


class Genai:
    """onnxruntime-genai on folders that its converter wrote. Raises RuntimeError with what went wrong over there."""

    def __init__(self, python: Path, folder: Path, pruned: Path, *, threads: int) -> None:
        self.name = "onnxruntime-genai"
        self.way: Way | None = None
        self.cpu_seconds = 0.0  # of the last run, all threads
        self._folders, self._threads = {False: folder, True: pruned}, threads
        self._process = subprocess.Popen(
            [str(python), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        self._loaded = ("off", False)
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
        spinning, pruned = self._loaded
        folder = str(self._folders[pruned])
        reply = self._ask(op="load", folder=folder, threads=self._threads, max_batch=MAX_BATCH, spinning=spinning)
        versions: dict[str, str] = reply["versions"]
        return versions

    def run(self, workload: Workload) -> Run:
        """Run it in the way that `way` says."""
        if self.way is None:
            raise ValueError("choose a way first")
        if self._loaded != (self.way.spinning, self.way.pruned):
            self._loaded = (self.way.spinning, self.way.pruned)
            self._load()
        tasks = [[task.prompt, task.num_tokens] for task in workload.tasks]
        reply = self._ask(op="run", way=self.way.name, batch=self.way.batch, tasks=tasks)
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
