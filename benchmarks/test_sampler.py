"""Speed of the numpy samplers on 32 rows of 151,936 logits. HostSampler is the oracle, not the product: no target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import SamplingRows
from isotoken.core.fast_sampler import FastSampler
from isotoken.core.sampling import HostSampler
from pytest_benchmark.fixture import BenchmarkFixture

NUM_ROWS, VOCAB_SIZE = 32, 151_936

CASES: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "seeded": {"temperature": 0.7},
    "top-k 50, top-p 0.95": {"temperature": 0.7, "top_k": 50, "top_p": 0.95},
    "top-p 0.95": {"temperature": 0.7, "top_p": 0.95},
    "5 logprobs": {"temperature": 0.0, "num_logprobs": 5},
}
TARGET_MS = {"greedy": 5.0, "top-k 50, top-p 0.95": 30.0}  # of FastSampler, on one core
SHAPES = {"flat": 0.3, "usual": 3.0, "peaked": 3.0}
"""Standard deviation of the logits. In the peaked ones 30 tokens of each row stand far above the rest, as in text."""


def make_rows(temperature: float, top_k: float = 0, top_p: float = 1, num_logprobs: float = -2) -> SamplingRows:
    """NUM_ROWS alike but for their seeds."""
    none, nothing = np.empty(0, np.int32), np.empty(0, np.float32)
    return SamplingRows(
        temperature=np.full(NUM_ROWS, temperature, np.float32),
        top_k=np.full(NUM_ROWS, top_k, np.int32),
        top_p=np.full(NUM_ROWS, top_p, np.float32),
        min_p=np.zeros(NUM_ROWS, np.float32),
        seeds=np.arange(NUM_ROWS, dtype=np.uint64),
        positions=np.arange(100, 100 + NUM_ROWS),
        target_ids=np.full(NUM_ROWS, -1, np.int32),
        num_logprobs=np.full(NUM_ROWS, num_logprobs, np.int32),
        penalty_rows=none,
        penalty_ids=none,
        penalty_values=nothing,
        bias_rows=none,
        bias_ids=none,
        bias_values=nothing,
        mask=None,
    )


@pytest.fixture(scope="module")
def logits() -> Any:
    return (np.random.default_rng(0).standard_normal((NUM_ROWS, VOCAB_SIZE)) * 3).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_host_sampler(benchmark: BenchmarkFixture, logits: Any, case: str) -> None:
    rows = make_rows(**CASES[case])
    sampled = benchmark.pedantic(HostSampler().sample, (logits, rows), rounds=3, warmup_rounds=1)
    assert len(sampled.token_ids) == NUM_ROWS
    assert benchmark.stats is not None
    print(f"\nHostSampler, {NUM_ROWS} x {VOCAB_SIZE}, {case}: {benchmark.stats.stats.median * 1e3:.1f} ms")


def shaped(logits: Any, shape: str) -> Any:
    """Logits of standard deviation 3 in another shape."""
    scaled = logits * np.float32(SHAPES[shape] / 3)
    if shape == "peaked":
        scaled[:, ::5000] += np.linspace(8, 22, scaled[:, ::5000].shape[1], dtype=np.float32)
    return scaled


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_fast_sampler(benchmark: BenchmarkFixture, logits: Any, case: str, shape: str) -> None:
    rows, x = make_rows(**CASES[case]), shaped(logits, shape)
    sampled = benchmark.pedantic(FastSampler().sample, (x, rows), rounds=10, warmup_rounds=2)
    assert np.array_equal(sampled.token_ids, HostSampler().sample(x, rows).token_ids)
    assert benchmark.stats is not None
    median, target = benchmark.stats.stats.median * 1e3, TARGET_MS.get(case)
    print(f"\nFastSampler, {NUM_ROWS} x {VOCAB_SIZE}, {shape}, {case}: {median:.1f} ms (target {target or 'none'})")
    assert target is None or median <= target
