"""The suite's models, written once a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from isotoken.core.checkpoint import Checkpoint

from .helpers import checkpoint


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Return a function that opens one of the suite's models."""
    folder = tmp_path_factory.mktemp("native")
    return lambda name: checkpoint(name, folder)
