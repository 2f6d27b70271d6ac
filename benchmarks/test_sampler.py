"""Speed of the samplers on 32 rows of 151,936 logits. HostSampler is the oracle, not the product: no target for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import SamplingRows
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
