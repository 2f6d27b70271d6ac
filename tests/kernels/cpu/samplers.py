"""The compiled sampler against HostSampler: rows and logits of every kind, and what counts as the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from isotoken.core.batch import Float32, Sampled, SamplingRows
from isotoken.core.sampling import HostSampler, edit_logits, gumbel

from ...core.test_fast_sampler import random_logits, random_rows
from ...core.test_sampling import make_rows

MARGIN = 1e-5  # scores closer than this may be decided either way: the contract of core.interfaces.Sampler
TOP_PS = (0.25, 0.5, 0.75)
SIZES = (3, 7, 33, 63, 64, 65, 500, 2048, 2049, 5000, 9000, 20_000)


class Sampling(Protocol):
    def sample(self, logits: Any, rows: SamplingRows) -> Sequence[Any]: ...


def drawn(sampler: Sampling, logits: Float32, rows: SamplingRows) -> Sampled:
    return Sampled(*sampler.sample(logits, rows))


def assert_same(sampler: Sampling, logits: Float32, rows: SamplingRows) -> Sampled:
    """Compare tokens, log-probabilities, ranks and best tokens with HostSampler's; the logits stay as they are."""
    before = logits.copy()
    got = drawn(sampler, logits, rows)
    np.testing.assert_array_equal(logits, before)
    with np.errstate(all="ignore"):  # the host sampler's, where everything is banned
        want = HostSampler().sample(logits, rows)
    assert got.token_ids.dtype == np.int32
    for row in np.flatnonzero(got.token_ids != want.token_ids):
        assert_near_tie(logits, rows, int(row), int(got.token_ids[row]), int(want.token_ids[row]))
    assert (got.logprobs is None) == (want.logprobs is None)
    if want.logprobs is not None and np.array_equal(got.token_ids, want.token_ids):
        np.testing.assert_allclose(got.logprobs, want.logprobs, rtol=1e-6, atol=2e-6)
        np.testing.assert_array_equal(got.ranks, want.ranks)
        np.testing.assert_array_equal(got.top_ids, want.top_ids)
        np.testing.assert_allclose(got.top_logprobs, want.top_logprobs, rtol=1e-6, atol=2e-6)
    return got


def assert_near_tie(logits: Float32, rows: SamplingRows, row: int, got: int, want: int) -> None:
    """Fail unless both tokens' scores are so close that logarithms of another library may order them otherwise."""
    one = rows.select(np.array([row]))
    assert one.target_ids[0] < 0 and one.temperature[0] > 0, f"row {row}: {got}, not {want}"
    ids = np.array([got, want])
    y = edit_logits(logits[row : row + 1], one)[0, ids] / one.temperature
    scores = [value + gumbel(one.seeds, one.positions, ids[i : i + 1])[0] for i, value in enumerate(y)]
    assert abs(scores[0] - scores[1]) <= MARGIN, f"row {row}: {got} scores {scores[0]}, {want} scores {scores[1]}"


def assert_same_bits(got: Sampled, want: Sampled) -> None:
    for name in ("token_ids", "logprobs", "ranks", "top_ids", "top_logprobs"):
        one, other = getattr(got, name), getattr(want, name)
        assert (one is None) == (other is None), name
        assert one is None or one.tobytes() == other.tobytes(), name


def check_even_nucleus(sampler: Sampling, vocab_size: int, top_p: float) -> None:
    """Equal weights, of which top_p keeps a whole number: the sum of weights decides in its last digits."""
    rows = make_rows(64, temperature=0.7, top_p=top_p, positions=np.arange(64))
    tokens = assert_same(sampler, np.full((64, vocab_size), 3.0, np.float32), rows).token_ids
    assert tokens.max() < vocab_size * top_p
    assert vocab_size > 4 or set(tokens.tolist()) == set(range(int(4 * top_p)))


def check_at_random(seed: int, samplers: Sequence[Sampling]) -> None:
    """Everything anywhere in its range; all of the samplers must give the same bits."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    num_rows, vocab_size = int(rng.integers(1, 9)), int(rng.choice(SIZES))
    logits, rows = random_logits(rng, num_rows, vocab_size), random_rows(rng, num_rows, vocab_size)
    first = assert_same(samplers[0], logits, rows)
    for sampler in samplers[1:]:
        assert_same_bits(drawn(sampler, logits, rows), first)
