"""Checkpoints of the suite's models, made once a session. Without onnxruntime there is nothing to test here."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from isotoken.core.checkpoint import Checkpoint

if find_spec("onnxruntime") is None or find_spec("onnx_ir") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Return a function that opens one of the suite's models."""
    from .helpers import checkpoint

    folder = tmp_path_factory.mktemp("models")
    return lambda name: checkpoint(name, folder)
