"""FastSampler draws what HostSampler draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from isotoken.core import fast_sampler
from isotoken.core.batch import NOT_A_NUMBER, Float32, Sampled, SamplingRows
from isotoken.core.fast_sampler import FastSampler, floor_of_best
from isotoken.core.logits_edits import pack_mask
from isotoken.core.sampling import HostSampler

from .test_sampling import make_rows

Rng = np.random.Generator


def random_logits(rng: Rng, num_rows: int, vocab_size: int) -> Float32:
    """Peaked, flat, tied, heavy-tailed, shifted or half banned logits."""
    kind = rng.integers(6)
    x = rng.normal(size=(num_rows, vocab_size)).astype(np.float32) * np.float32(rng.choice([0.1, 1, 4, 30]))
    if kind == 1:
        x = np.round(x)  # ties everywhere
    elif kind == 2:
        x[:] = np.float32(rng.normal())
    elif kind == 3:
        x += np.float32(rng.normal() * 1000)
    elif kind == 4:
        x = np.float32(rng.choice([1, -1])) * np.abs(x) ** 2
    elif kind == 5:
        x[rng.random(x.shape) < 0.5] = -np.inf
    return x


def random_rows(rng: Rng, num_rows: int, vocab_size: int) -> SamplingRows:
    """Every parameter anywhere in its range, each off in about half of the rows."""

    def sometimes(values: Any, off: float) -> Any:
        return np.where(rng.random(num_rows) < 0.5, values, off)

    options: dict[str, Any] = {
        "temperature": sometimes(np.exp(rng.normal(size=num_rows) * 1.5), rng.choice([0.0, 1.0])),
        "top_k": sometimes(rng.choice([1, 2, 5, 50, 200, 700, vocab_size, 2 * vocab_size], num_rows), 0),
        "top_p": sometimes(rng.choice([1e-6, 0.1, 0.5, 0.9, 0.95, 0.999], num_rows), 1),
        "min_p": sometimes(rng.choice([1.0, 0.3, 0.05, 1e-4, 1e-9], num_rows), 0),
        "seeds": rng.integers(0, 2**64, num_rows, dtype=np.uint64),
        "positions": rng.integers(1, 2**34, num_rows),
        "target_ids": np.where(rng.random(num_rows) < 0.15, rng.integers(0, vocab_size, num_rows), -1),
        "num_logprobs": rng.choice([-2, -2, 0, 1, 5, 20, -1], num_rows),
    }
    for name, values in (("penalty", np.exp(rng.normal(size=40))), ("bias", rng.choice([-np.inf, -15, 3, 20], 40))):
        if rng.random() < 0.4:
            flat = rng.choice(num_rows * vocab_size, min(40, num_rows * vocab_size), replace=False)
            options[name] = [(*divmod(place, vocab_size), value) for place, value in zip(flat, values, strict=False)]
    if rng.random() < 0.3:
        allowed = [rng.choice(vocab_size, rng.integers(1, vocab_size), replace=False) for _ in range(num_rows)]
        options["mask"] = np.stack([pack_mask(ids.tolist(), vocab_size) for ids in allowed])
    return make_rows(num_rows, **options)


def assert_same(logits: Float32, rows: SamplingRows) -> Sampled:
    """Compare tokens and log-probabilities; neither sampler may touch the logits."""
    before = logits.copy()
    with np.errstate(all="ignore"):  # the host sampler's, where everything is banned
        got, want = FastSampler().sample(logits, rows), HostSampler().sample(logits, rows)
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_array_equal(got.token_ids, want.token_ids)
    assert got.token_ids.dtype == np.int32
    assert (got.logprobs is None) == (want.logprobs is None)
    if want.logprobs is not None:
        np.testing.assert_allclose(got.logprobs, want.logprobs, rtol=1e-6, atol=2e-6)
        np.testing.assert_array_equal(got.ranks, want.ranks)
        np.testing.assert_array_equal(got.top_ids, want.top_ids)
        np.testing.assert_allclose(got.top_logprobs, want.top_logprobs, rtol=1e-6, atol=2e-6)
    return got


@pytest.mark.parametrize("seed", range(200))
def test_equals_the_host_sampler_over_random_parameters(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    num_rows, vocab_size = int(rng.integers(1, 9)), int(rng.choice([7, 33, 500, 5000, 9000, 20_000]))
    assert_same(random_logits(rng, num_rows, vocab_size), random_rows(rng, num_rows, vocab_size))


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    "filters", [{"top_k": 50, "top_p": 0.95}, {}, {"top_p": 0.95}, {"min_p": 0.05}, {"top_k": 2000, "top_p": 0.3}]
)
def test_equals_the_host_sampler_on_a_large_vocabulary(scale: float, filters: dict[str, float]) -> None:
    logits = np.random.default_rng(0).normal(size=(9, 151_936)).astype(np.float32) * np.float32(scale)
    temperatures = np.tile([0.5, 1.0, 2.0], 3)
    assert_same(logits, make_rows(9, temperature=temperatures, seeds=np.arange(9), positions=77, **filters))


def test_more_rows_than_are_handled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    logits, rows = random_logits(rng, 23, 300), random_rows(rng, 23, 300)
    together = FastSampler().sample(logits, rows)
    monkeypatch.setattr(fast_sampler, "_CHUNK", 1000)
    assert assert_same(logits, rows).token_ids.tolist() == together.token_ids.tolist()


def test_noise_given_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_sampler, "_NOISE_CHUNK", 7)
    logits = np.random.default_rng(2).normal(size=(20, 1000)).astype(np.float32)
    assert_same(logits, make_rows(20, temperature=1, positions=np.arange(20)))


def test_a_token_outside_the_first_look_wins_where_it_should() -> None:
    """Flat logits: the winner is mostly none of the 256 that stand highest."""
    logits = np.random.default_rng(1).normal(size=(40, 9000)).astype(np.float32) * np.float32(0.01)
    tokens = assert_same(logits, make_rows(40, temperature=1, positions=np.arange(40))).token_ids
    ranks = [int((row > row[token]).sum()) for row, token in zip(logits, tokens, strict=True)]
    assert sum(rank >= fast_sampler.FIRST_LOOK for rank in ranks) > 30


@pytest.mark.parametrize("top_p", [0.25, 0.5, 0.75])
def test_a_nucleus_that_ends_between_two_tokens(top_p: float) -> None:
    """Equal weights, of which top_p keeps a whole number: the sum of weights decides in its last digits."""
    logits = np.full((64, 4), 3.0, np.float32)
    tokens = assert_same(logits, make_rows(64, temperature=0.7, top_p=top_p, positions=np.arange(64))).token_ids
    assert set(tokens.tolist()) == set(range(int(4 * top_p)))


@pytest.mark.parametrize(("value", "token"), [(-np.inf, 0), (np.nan, NOT_A_NUMBER), (np.inf, 0)])
@pytest.mark.parametrize("temperature", [0, [0, 1, 1]])
def test_useless_logits_give_a_token_unless_they_are_nan_and_no_warning(
    value: float, token: int, temperature: float
) -> None:
    rows = make_rows(3, temperature=temperature, top_p=0.5, top_k=[0, 0, 3])
    assert FastSampler().sample(np.full((3, 9), value, np.float32), rows).token_ids.tolist() == [token] * 3


def test_a_temperature_so_low_that_logits_overflow() -> None:
    logits = np.array([[1, 3e5, 2e5, 3e5]] * 2, np.float32)
    rows = make_rows(2, temperature=1e-38, top_k=[0, 2])
    assert FastSampler().sample(logits, rows).token_ids.tolist() == [1, 1]
    assert_same(logits, rows)


def test_no_rows_and_logits_of_other_types() -> None:
    assert FastSampler().sample(np.empty((0, 9), np.float32), make_rows(0)).token_ids.shape == (0,)
    assert FastSampler().sample([[0.0, 2.0, 1.0]], make_rows(1)).token_ids.tolist() == [1]


@pytest.mark.parametrize(("size", "count"), [(5, 5), (5, 9), (5, 2), (9000, 50), (9000, 700), (150_001, 256)])
def test_the_floor_is_reached_by_as_many_as_asked_and_not_many_more(size: int, count: int) -> None:
    values = np.random.default_rng(size + count).normal(size=size).astype(np.float32)
    reached = int((values >= floor_of_best(values, count)).sum())
    assert min(count, size) <= reached <= max(1.5 * count, count + 3) or reached == size
