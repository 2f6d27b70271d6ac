"""TorchSampler draws exactly what HostSampler draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from isotoken.backends.torch.sampler import TorchSampler
from isotoken.core.batch import NOT_A_NUMBER, Sampled, SamplingRows
from isotoken.core.logits_edits import pack_mask
from isotoken.core.sampling import HostSampler
from numpy.typing import NDArray

Rng = np.random.Generator


def make_rows(num_rows: int, **changes: object) -> SamplingRows:
    """Greedy rows with what is named changed."""
    none_i, none_f = np.empty(0, np.int32), np.empty(0, np.float32)
    fields: dict[str, object] = {
        "temperature": np.zeros(num_rows, np.float32),
        "top_k": np.zeros(num_rows, np.int32),
        "top_p": np.ones(num_rows, np.float32),
        "min_p": np.zeros(num_rows, np.float32),
        "seeds": np.arange(num_rows, dtype=np.uint64),
        "positions": np.arange(num_rows, dtype=np.int64) + 1,
        "target_ids": np.full(num_rows, -1, np.int32),
        "num_logprobs": np.full(num_rows, -2, np.int32),
        "penalty_rows": none_i,
        "penalty_ids": none_i,
        "penalty_values": none_f,
        "bias_rows": none_i,
        "bias_ids": none_i,
        "bias_values": none_f,
        "mask": None,
    }
    return SamplingRows(**(fields | changes))  # type: ignore[arg-type]


def random_logits(rng: Rng, num_rows: int, vocab_size: int) -> NDArray[np.float32]:
    """Peaked, flat, tied, heavy-tailed or shifted logits, or ones that came out of bfloat16."""
    kind = rng.integers(6)
    x = rng.normal(size=(num_rows, vocab_size)).astype(np.float32) * np.float32(rng.choice([0.1, 1, 4, 30]))
    if kind == 1:
        x = np.round(x)  # ties everywhere
    elif kind == 2:
        x = torch.from_numpy(x).bfloat16().float().numpy()
    elif kind == 3:
        x += np.float32(rng.normal() * 1000)
    elif kind == 4:
        x = np.float32(rng.choice([1, -1])) * np.abs(x) ** 2
    elif kind == 5:
        x[:] = np.float32(rng.normal())
    return x


def random_rows(rng: Rng, num_rows: int, vocab_size: int) -> SamplingRows:
    """Every parameter anywhere in its range, each off in about half of the rows."""

    def sometimes(values: NDArray[np.generic], off: float) -> NDArray[np.generic]:
        return np.where(rng.random(num_rows) < 0.5, values, np.array(off, values.dtype))

    changes: dict[str, object] = {
        "temperature": sometimes(np.exp(rng.normal(size=num_rows) * 1.5).astype(np.float32), rng.choice([0.0, 1.0])),
        "top_k": sometimes(rng.choice([1, 2, 5, 50, 200, vocab_size, 2 * vocab_size], num_rows).astype(np.int32), 0),
        "top_p": sometimes(rng.choice([1e-6, 0.1, 0.5, 0.9, 0.95, 0.999], num_rows).astype(np.float32), 1),
        "min_p": sometimes(rng.choice([1.0, 0.3, 0.05, 1e-4, 1e-9], num_rows).astype(np.float32), 0),
        "seeds": rng.integers(0, 2**64, num_rows, dtype=np.uint64),
        "positions": rng.integers(1, 2**34, num_rows),
        "target_ids": np.where(rng.random(num_rows) < 0.15, rng.integers(0, vocab_size, num_rows), -1).astype(np.int32),
        "num_logprobs": rng.choice([-2, -2, 0, 1, 5, 20, -1], num_rows).astype(np.int32),
    }
    for name in ("penalty", "bias"):
        if rng.random() < 0.4:
            flat = rng.choice(num_rows * vocab_size, min(40, num_rows * vocab_size), replace=False)
            values = np.exp(rng.normal(size=len(flat))) if name == "penalty" else rng.normal(size=len(flat)) * 20
            values = values.astype(np.float32)
            if name == "bias":
                values[::5] = -np.inf
            rows, ids = np.divmod(flat.astype(np.int32), np.int32(vocab_size))
            changes |= {f"{name}_rows": rows, f"{name}_ids": ids, f"{name}_values": values}
    if rng.random() < 0.3:
        allowed = [rng.choice(vocab_size, rng.integers(1, vocab_size), replace=False) for _ in range(num_rows)]
        changes["mask"] = np.stack([pack_mask(ids.tolist(), vocab_size) for ids in allowed])
    return make_rows(num_rows, **changes)


def assert_equal(got: Sampled, want: Sampled) -> None:
    """Compare tokens and, where they are, log-probabilities."""
    np.testing.assert_array_equal(got.token_ids, want.token_ids)
    assert got.token_ids.dtype == np.int32
    assert (got.logprobs is None) == (want.logprobs is None)
    if want.logprobs is None:
        return
    np.testing.assert_allclose(got.logprobs, want.logprobs, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(got.ranks, want.ranks)
    np.testing.assert_array_equal(got.top_ids, want.top_ids)
    np.testing.assert_allclose(got.top_logprobs, want.top_logprobs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("seed", range(150))
def test_equals_the_host_sampler_over_random_parameters(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    num_rows, vocab_size = int(rng.integers(1, 9)), int(rng.choice([7, 33, 128, 500, 1000, 5000]))
    logits, rows = random_logits(rng, num_rows, vocab_size), random_rows(rng, num_rows, vocab_size)
    before = logits.copy()
    got = TorchSampler().sample(torch.from_numpy(logits), rows)
    np.testing.assert_array_equal(logits, before)
    with np.errstate(invalid="ignore"):  # rows where everything is banned
        want = HostSampler().sample(logits, rows)
    assert_equal(got, want)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(50, 0.95, 0.0), (0, 1.0, 0.0), (0, 0.95, 0.0), (0, 1.0, 0.05)])
def test_equals_the_host_sampler_on_a_large_vocabulary(scale: float, top_k: int, top_p: float, min_p: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 151936)).astype(np.float32) * np.float32(scale)
    rows = make_rows(
        4,
        temperature=np.array([0.5, 1.0, 1.0, 2.0], np.float32),
        top_k=np.full(4, top_k, np.int32),
        top_p=np.full(4, top_p, np.float32),
        min_p=np.full(4, min_p, np.float32),
    )
    assert_equal(TorchSampler().sample(torch.from_numpy(logits), rows), HostSampler().sample(logits, rows))


def test_a_row_with_everything_banned_gives_the_lowest_id() -> None:
    rows = make_rows(2, temperature=np.array([1.0, 0.0], np.float32), mask=np.zeros((2, 4), np.uint32))
    logits = np.zeros((2, 100), np.float32)
    with np.errstate(invalid="ignore"):
        want = HostSampler().sample(logits, rows)
    assert_equal(TorchSampler().sample(torch.from_numpy(logits), rows), want)
    assert want.token_ids.tolist() == [0, 0]


def test_no_rows() -> None:
    sampled = TorchSampler().sample(torch.empty(0, 100), make_rows(0))
    assert sampled.token_ids.shape == (0,)


def test_draws_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).repeat(4000, 1)
    rows = make_rows(4000, temperature=np.ones(4000, np.float32))
    counts = np.bincount(TorchSampler().sample(logits, rows).token_ids, minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.15, 0.05], atol=0.03)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_holds_nan_has_no_token(temperature: float) -> None:
    logits = torch.zeros(3, 700)
    logits[1, 600], logits[2, 3] = torch.nan, 40.0
    rows = make_rows(3, temperature=np.full(3, temperature, np.float32), num_logprobs=np.array([-2, 3, 3], np.int32))
    tokens = TorchSampler().sample(logits, rows).token_ids
    assert tokens[1:].tolist() == [NOT_A_NUMBER, 3]
    assert tokens[0] >= 0
