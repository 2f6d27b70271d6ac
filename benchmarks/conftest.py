"""Options of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .make_model import ensure_model


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("isotoken benchmarks")
    group.addoption("--bench-cache", metavar="DIR", help="where benchmark models are kept")
    group.addoption("--bench-size", default="125m", help="benchmark model: 125m, 500m or tiny")
    group.addoption("--bench-rounds", type=int, default=3, help="measured rounds of each workload")
    group.addoption("--bench-threads", type=int, default=2, help="CPU threads for everyone")


@pytest.fixture(scope="session")
def bench_model(request: pytest.FixtureRequest) -> Path:
    """The folder of the benchmark model."""
    cache = request.config.getoption("--bench-cache")
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    return ensure_model(request.config.getoption("--bench-size"), Path(cache) if cache else None)
