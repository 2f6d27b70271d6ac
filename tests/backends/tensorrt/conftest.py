"""The fake TensorRT in place of the real one, and backends on it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isotoken.conformance.models import MODELS, write_checkpoint
from isotoken.conformance.rig import Rig
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
from numpy.typing import NDArray

FAKE = Path(__file__).parent / "fake"


@pytest.fixture(scope="session")
def fake_modules() -> dict[str, Any]:
    """The fake's modules, imported once: the backend's own keep what they imported first."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    before = set(sys.modules)
    sys.path.insert(0, str(FAKE))
    try:
        importlib.import_module("tensorrt")
        importlib.import_module("host_device")
    finally:
        sys.path.remove(str(FAKE))
    return {name: sys.modules.pop(name) for name in set(sys.modules) - before if name.split(".")[0] in _OURS}


_OURS = ("tensorrt", "host_device")


@pytest.fixture(autouse=True)
def world(fake_modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What stands behind the fake, with no faults."""
    for name, module in fake_modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    behind = fake_modules["tensorrt._world"]
    behind.reset()
    yield behind
    behind.reset()


@dataclass
class Bench:
    """A backend on a device in host memory, and models for it."""

    folder: Path
    device: Any
    backend: Any
    runners: list[Any] = field(default_factory=list)

    def checkpoint(self, model: str = "llama") -> Checkpoint:
        """One of the conformance suite's models."""
        path = self.folder / model
        if not path.exists():
            write_checkpoint(MODELS[model], path)
        return Checkpoint.open(path)

    def config(self, *, options: dict[str, str] | None = None, **changes: Any) -> RunnerConfig:
        """A small configuration, with an engine cache of its own."""
        fields: dict[str, Any] = {
            "dtype": "float32",
            "max_model_len": 64,
            "max_num_seqs": 4,
            "max_num_batched_tokens": 64,
        }
        return RunnerConfig(
            **(fields | changes), options={"engine_cache": str(self.folder / "cache")} | (options or {})
        )

    def load(self, model: str = "llama", **changes: Any) -> Any:
        """Load a runner, which is closed after the test."""
        self.runners.append(self.backend.load(self.checkpoint(model), self.config(**changes)))
        return self.runners[-1]

    def plans(self) -> list[Path]:
        """The engines that are kept."""
        return sorted((self.folder / "cache").glob("*.plan"))


@pytest.fixture
def bench(world: Any, tmp_path: Path) -> Iterator[Bench]:
    """A backend of its own for each test."""
    from host_device import HostDevice
    from isotoken.backends.tensorrt.backend import TensorRTBackend

    device = HostDevice()
    made = Bench(tmp_path, device, TensorRTBackend(lambda name: device))
    yield made
    for runner in made.runners:
        runner.close()


Answer = Callable[[Any, list[int]], NDArray[np.float64]]


@pytest.fixture
def answer() -> Answer:
    """Return a function that gives the logits [V] after a prompt."""

    def compute(runner: Any, tokens: list[int]) -> NDArray[np.float64]:
        rig = Rig(runner)
        return rig.step([(rig.strand(tokens), len(tokens), 1)])[0][0]

    return compute
