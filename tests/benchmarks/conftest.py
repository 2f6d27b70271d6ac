"""A tiny random model and the built-in plugins, made once; and backends with known faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from isotoken.api.bench.models import ensure_model
from isotoken.plugins.manager import Plugins

from . import faulty


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' random models are."""
    folder = tmp_path_factory.mktemp("bench")
    ensure_model("tiny", folder)
    return folder


@pytest.fixture(scope="session")
def tiny(cache: Path) -> Path:
    return ensure_model("tiny", cache)


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    loaded = Plugins.load(extra=[("faulty", faulty)])
    assert "wrong" in loaded.backends, loaded.infos[-1]
    return loaded
