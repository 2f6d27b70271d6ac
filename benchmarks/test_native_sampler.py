"""Speed of the sampler in C++ on the logits of test_sampler.py; it must draw what HostSampler draws.

The roof is reading all logits from memory once, measured beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from isotoken.api.bench.roof import Roof, RoofMeter
from isotoken.core.sampling import HostSampler
from isotoken.kernels.cpu import library
from isotoken.kernels.cpu.sampler import TeamSampler
from pytest_benchmark.fixture import BenchmarkFixture

from .test_sampler import CASES, NUM_ROWS, SHAPES, VOCAB_SIZE, make_rows, shaped

ALL_CASES: dict[str, dict[str, float]] = {
    **CASES,
    "unfiltered, temperature 1": {"temperature": 1.0},
    "top-k 1000": {"temperature": 1.0, "top_k": 1000},
}
TARGET_MS = 5.0  # of every case, on two threads
NUM_BYTES = 4 * NUM_ROWS * VOCAB_SIZE


@pytest.fixture(scope="module")
def logits() -> Any:
    return (np.random.default_rng(0).standard_normal((NUM_ROWS, VOCAB_SIZE)) * 3).astype(np.float32)


@pytest.fixture(scope="module")
def sampler(request: pytest.FixtureRequest) -> Iterator[TeamSampler]:
    with library.load().team(request.config.getoption("--bench-threads")) as team:
        yield TeamSampler(team)


@pytest.fixture(scope="module")
def roof_ms(request: pytest.FixtureRequest) -> float:
    threads = request.config.getoption("--bench-threads")
    with RoofMeter(NUM_BYTES, dtypes=(), threads=threads) as meter:
        roof = Roof.best([meter.measure() for _ in range(3)])
    return NUM_BYTES / roof.bytes_per_second * 1e3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", ALL_CASES)
def test_native_sampler(
    benchmark: BenchmarkFixture, logits: Any, sampler: TeamSampler, roof_ms: float, case: str, shape: str
) -> None:
    rows, x = make_rows(**ALL_CASES[case]), shaped(logits, shape)
    want = HostSampler().sample(x, rows)
    assert np.array_equal(sampler.sample(x, rows).token_ids, want.token_ids)
    benchmark.pedantic(sampler.sample, (x, rows), rounds=30, warmup_rounds=3)
    assert benchmark.stats is not None
    stats = benchmark.stats.stats
    median, best = stats.median * 1e3, stats.min * 1e3
    print(
        f"\nTeamSampler, {library.load().isa}, {NUM_ROWS} x {VOCAB_SIZE}, {shape}, {case}: {median:.2f} ms, "
        f"best {best:.2f} ms (target {TARGET_MS}); {roof_ms / best:.0%} of the roof of {roof_ms:.2f} ms"
    )
    assert best <= TARGET_MS


@pytest.mark.parametrize("case", ALL_CASES)
def test_one_row(benchmark: BenchmarkFixture, logits: Any, sampler: TeamSampler, case: str) -> None:
    """A single stream: all threads share the row."""
    rows = make_rows(**ALL_CASES[case]).select(np.arange(1))
    x = shaped(logits, "usual")[:1]
    benchmark.pedantic(sampler.sample, (x, rows), rounds=200, warmup_rounds=20)
    assert np.array_equal(sampler.sample(x, rows).token_ids, HostSampler().sample(x, rows).token_ids)
    assert benchmark.stats is not None
    stats = benchmark.stats.stats
    print(f"\nTeamSampler, 1 x {VOCAB_SIZE}, {case}: {stats.median * 1e3:.3f} ms, best {stats.min * 1e3:.3f} ms")
