"""The fake TensorRT in place of the real one, and a backend on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).parent / "fake"


def install_fake() -> None:
    """Let `import tensorrt` find the fake."""
    if str(FAKE) not in sys.path:
        sys.path.insert(0, str(FAKE))


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What stands behind the fake, with no faults."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    install_fake()
    from tensorrt import _world

    _world.reset()
    yield _world
    _world.reset()
