"""Checkpoints of the suite's models, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from isotoken.core.checkpoint import Checkpoint

from .helpers import checkpoint

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Return a function that opens one of the suite's models."""
    folder: Path = tmp_path_factory.mktemp("models")
    return lambda name: checkpoint(name, folder)
