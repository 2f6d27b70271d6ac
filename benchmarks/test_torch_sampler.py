"""Speed of the torch sampler on the CPU, on the logits of test_sampler.py; it must draw what HostSampler draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from isotoken.backends.torch.sampler import TorchSampler
from isotoken.core.sampling import HostSampler
from pytest_benchmark.fixture import BenchmarkFixture

from .test_sampler import CASES, NUM_ROWS, VOCAB_SIZE, make_rows

TARGET_MS = {"greedy": 5.0, "top-k 50, top-p 0.95": 60.0}


@pytest.fixture(scope="module")
def logits() -> Any:
    return (np.random.default_rng(0).standard_normal((NUM_ROWS, VOCAB_SIZE)) * 3).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_torch_sampler(benchmark: BenchmarkFixture, logits: Any, case: str, request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    rows, tensor = make_rows(**CASES[case]), torch.from_numpy(logits)
    sampled = benchmark.pedantic(TorchSampler().sample, (tensor, rows), rounds=10, warmup_rounds=2)
    assert np.array_equal(sampled.token_ids, HostSampler().sample(logits, rows).token_ids)
    assert benchmark.stats is not None
    median, target = benchmark.stats.stats.median * 1e3, TARGET_MS.get(case)
    print(f"\nTorchSampler, {NUM_ROWS} x {VOCAB_SIZE}, {case}: {median:.1f} ms (target {target or 'none'})")
    assert target is None or median <= target
