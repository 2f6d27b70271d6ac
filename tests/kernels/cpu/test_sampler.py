"""The sampler in C++ draws what HostSampler draws, on every instruction set and any number of threads."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import NOT_A_NUMBER
from isotoken.core.logits_edits import pack_mask
from isotoken.core.sampling import gumbel, philox4x32_10
from isotoken.kernels.cpu import library
from isotoken.kernels.cpu.sampler import TeamSampler

from ...core.test_sampling import make_rows
from .samplers import TOP_PS, Float32, assert_same, assert_same_bits, check_at_random, check_even_nucleus, drawn
from .steps import ISAS, team

THREADS = (1, 2, 3)
EVERY_RANK = -1
in_use = [""]  # the instruction set that `sampler` is of


@functools.cache
def sampler_of(num_threads: int, isa: str) -> TeamSampler:
    return TeamSampler(team(num_threads, isa))


def sampler(num_threads: int) -> TeamSampler:
    """One of the instruction set in use."""
    return sampler_of(num_threads, in_use[-1])


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set in turn, where it runs."""
    use(request.param)
    team(1, request.param)  # or skip
    return str(request.param)


@pytest.fixture(autouse=True)
def best() -> None:
    """Whatever another test left in use."""
    use("")


def use(isa: str) -> None:
    in_use[:] = [isa]


def normal(seed: int, *shape: int, scale: float = 1) -> Float32:
    return np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(scale)


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_host_sampler_over_random_parameters_on_any_threads(isa: str, seed: int) -> None:
    check_at_random(seed, [sampler(num_threads) for num_threads in THREADS])


@pytest.mark.parametrize("scale", [0.02, 1.0, 4.0])
@pytest.mark.parametrize(
    "filters",
    [{}, {"top_k": 50, "top_p": 0.95}, {"top_p": 0.95}, {"top_p": 0.1}, {"min_p": 0.05}, {"top_k": 3000, "top_p": 0.3}],
)
def test_equals_the_host_sampler_on_a_large_vocabulary(scale: float, filters: dict[str, float]) -> None:
    logits = normal(0, 9, 151_936, scale=scale)
    rows = make_rows(9, temperature=np.tile([0.5, 1, 2], 3), seeds=np.arange(9), positions=2**33 + 5, **filters)
    use("")
    want = assert_same(sampler(2), logits, rows)
    for isa in library.load().isas:
        use(isa)
        assert_same_bits(drawn(sampler(2), logits, rows), want)


@pytest.mark.parametrize("vocab_size", [*range(1, 20), 31, 32, 33, 127, 129, 4095, 4097, 100_003, 151_936])
def test_any_vocabulary_whatever_stands_behind_a_row(isa: str, vocab_size: int) -> None:
    """Rows lie apart, with what would win between them."""
    memory = np.full((5, vocab_size + 9), np.inf, np.float32)
    logits = memory[:, :vocab_size]
    logits[:] = -np.abs(normal(vocab_size, 5, vocab_size))
    last = np.arange(5) * vocab_size // 5
    rows = make_rows(5, temperature=[0, 1, 1, 3, 1], top_k=[0, 0, 2, 0, 0], positions=last, num_logprobs=4)
    assert_same(sampler(2), logits, rows)
    assert np.isinf(memory[:, vocab_size:]).all()


def test_ties_go_to_the_lowest_id(isa: str) -> None:
    flat = np.zeros((200, 5000), np.float32)
    assert set(drawn(sampler(2), flat, make_rows(200)).token_ids.tolist()) == {0}
    rows = make_rows(200, temperature=1, top_k=3, positions=np.arange(200), num_logprobs=9)
    got = assert_same(sampler(2), flat, rows)
    assert set(got.token_ids.tolist()) == {0, 1, 2}
    assert got.top_ids is not None and (got.top_ids == np.arange(9)).all()


@pytest.mark.parametrize("top_p", TOP_PS)
@pytest.mark.parametrize("vocab_size", [4, 3000])
def test_a_nucleus_that_ends_between_two_equals(isa: str, top_p: float, vocab_size: int) -> None:
    check_even_nucleus(sampler(2), vocab_size, top_p)


@pytest.mark.parametrize(("value", "token"), [(-np.inf, 0), (np.nan, NOT_A_NUMBER), (np.inf, 0)])
def test_useless_logits_give_a_token_unless_they_are_nan(isa: str, value: float, token: int) -> None:
    rows = make_rows(3, temperature=[0, 1, 1], top_p=0.5, top_k=[0, 0, 3], num_logprobs=2)
    with np.errstate(invalid="ignore"):
        assert drawn(sampler(2), np.full((3, 99), value, np.float32), rows).token_ids.tolist() == [token] * 3


@pytest.mark.parametrize("value", [-np.inf, np.nan, np.inf])
def test_single_values_that_are_not_finite(isa: str, value: float) -> None:
    logits = normal(3, 6, 700)
    logits[:3, 650], logits[3:, [3, 600]] = value, value
    assert_same(sampler(2), logits, make_rows(6, temperature=[0, 1, 0.2] * 2, top_p=[1, 0.9, 1] * 2))


def test_logprobs_of_logits_that_are_not_finite(isa: str) -> None:
    logits = normal(4, 3, 700)
    logits[0], logits[1, 5], logits[2, ::2] = -np.inf, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        assert_same(sampler(2), logits, make_rows(3, num_logprobs=3, target_ids=[-1, 7, 2]))


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-30, 1e-6, 1e-3, 1e3, 1e30, 3e38])
def test_temperatures_from_one_end_to_the_other(isa: str, temperature: float) -> None:
    logits = normal(5, 12, 3000, scale=5)
    logits[0, :4] = [1, 3e5, 2e5, 3e5]
    logits[1] -= 100
    filters = {"top_k": [0, 0, 7] * 4, "top_p": [1, 0.6, 1, 0.9] * 3, "min_p": [0, 0.1, 0, 0] * 3}
    assert_same(sampler(2), logits, make_rows(12, temperature=temperature, positions=np.arange(12), **filters))


def test_a_temperature_that_makes_neighbours_equal(isa: str) -> None:
    """The order is that of the quotients: where they are equal the lower id comes first, whatever the logits."""
    ladder = np.cumsum(np.full(400, np.spacing(np.float32(8))), dtype=np.float32) + np.float32(8)
    logits = np.stack([np.random.default_rng(seed).permutation(ladder) for seed in range(40)])
    for top_k, temperature in ((1, 7.3), (40, 7.3), (100, 0.9), (399, 1e5)):
        rows = make_rows(40, temperature=temperature, top_k=top_k, top_p=0.9, positions=np.arange(40))
        assert_same(sampler(2), logits, rows)


def test_penalties_biases_and_masks_in_any_order_of_rows(isa: str) -> None:
    rng = np.random.default_rng(8)
    size, logits = 3001, normal(8, 12, 3001, scale=3)
    pairs = [(int(row), int(token)) for row in rng.permutation(12) for token in rng.choice(size, 300, replace=False)]
    rows = make_rows(
        12,
        temperature=[0, 0.8, 1.5] * 4,
        num_logprobs=[-2, 2] * 6,
        positions=np.arange(12),
        penalty=[(row, token, rng.choice([0.5, 1.3, 2])) for row, token in pairs],
        bias=[(row, token, rng.choice([-2, 4, -np.inf])) for row, token in pairs[::-2]],
        mask=np.stack([pack_mask(rng.choice(size, size // 2, replace=False).tolist(), size) for _ in range(12)]),
    )
    want = assert_same(sampler(1), logits, rows)
    assert_same_bits(drawn(sampler(3), logits, rows), want)


def test_nothing_is_allowed(isa: str) -> None:
    mask = np.stack([pack_mask([], 500), pack_mask([7], 500), pack_mask([7], 500)])
    rows = make_rows(3, temperature=1, mask=mask, bias=[(1, 7, -np.inf)], top_p=0.5)
    assert assert_same(sampler(2), normal(1, 3, 500), rows).token_ids.tolist() == [0, 0, 7]


@pytest.mark.parametrize("vocab_size", [5, 300, 3000, 40_000])
def test_logprobs_scores_ranks_and_the_whole_vocabulary(isa: str, vocab_size: int) -> None:
    logits = np.round(normal(6, 6, vocab_size, scale=20)) / 4  # ties everywhere
    k = [-1, 0, 3, vocab_size, 700, -2]
    rows = make_rows(6, temperature=[0, 1] * 3, target_ids=[-1, 4, 2, -1, 0, 1], num_logprobs=k, bias=[(3, 1, 9)])
    got = assert_same(sampler(2), logits, rows)
    assert got.top_ids is not None and got.top_ids.shape == (6, vocab_size)
    assert got.logprobs is not None and got.logprobs[5] == 0
    assert sorted(got.top_ids[0].tolist()) == list(range(vocab_size))


def test_a_row_depends_on_neither_company_nor_threads(isa: str) -> None:
    """Rows drawn by one thread each and by all together."""
    logits = normal(7, 7, 30_000, scale=2)
    logits[2] *= np.float32(0.01)
    rows = make_rows(
        7,
        temperature=[0, 1, 1, 0.5, 2, 1, 1],
        top_p=[1, 0.9, 0.2] + [1] * 4,
        top_k=[0] * 5 + [40, 5000],
        num_logprobs=6,
    )
    together = drawn(sampler(1), logits, rows)
    for chosen in ([2], [1, 2], [6, 5, 0], [4, 3, 2, 1, 0], list(range(7))):
        for num_threads in (*THREADS, 5):
            got = drawn(sampler(num_threads), logits[chosen], rows.select(np.array(chosen)))
            for name in ("token_ids", "logprobs", "ranks", "top_ids", "top_logprobs"):
                assert getattr(got, name).tobytes() == getattr(together, name)[chosen].tobytes(), (name, chosen)


def test_reads_logits_of_any_kind_and_no_rows(isa: str) -> None:
    assert drawn(sampler(2), np.empty((0, 9), np.float32), make_rows(0)).token_ids.shape == (0,)
    assert drawn(sampler(2), [[0.0, 2.0, 1.0]], make_rows(1)).token_ids.tolist() == [1]
    logits = normal(9, 4, 60)
    for odd in (logits.astype(np.float64), np.asfortranarray(logits), logits[:, ::-1][:, ::-1], logits[::-1][::-1]):
        assert_same(sampler(2), odd, make_rows(4, temperature=[0, 1, 1, 1]))
    logits.flags.writeable = False
    assert_same(sampler(2), logits, make_rows(4, temperature=[0, 1, 1, 1]))


def noise(seed: int, position: int, first: int, count: int) -> Float32:
    function = team(1)._functions.isotoken_sample_noise
    function.argtypes = [ctypes.c_uint64, ctypes.c_int64, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p]
    function.restype = None
    out = np.empty(count, np.float32)
    function(seed, position, first, count, out.ctypes.data)
    return out


@pytest.mark.parametrize(("seed", "position"), [(0, 0), (2**64 - 1, 2**40 - 1), (0x243F6A8885A308D3, 2**33 + 1)])
def test_noise_is_the_cores_within_a_millionth(seed: int, position: int) -> None:
    """A hundred thousand tokens, and so words, of each; at most the last bit of the higher ones differs."""
    ids = np.arange(1001, 101_001)
    want = gumbel(np.array([seed], np.uint64), np.array([position]), ids)
    got = noise(seed, position, 1001, len(ids))
    assert np.abs(got - want).max() <= 2e-6
    assert np.abs(got - want)[want < 8].max() <= 1e-6


def test_noise_of_every_token_is_of_its_own_word() -> None:
    """Against the definition in float64, so that an error of both logarithms would show."""
    ids = np.arange(4000)
    key, groups = np.full(1000, 99, np.uint64), np.arange(1000, dtype=np.uint64)
    zero = np.zeros(1000, np.uint64)
    words = np.stack(philox4x32_10(key, (groups, zero + np.uint64(5), zero, zero)), axis=1).ravel()
    uniform = ((words >> np.uint32(9)).astype(np.float64) + 0.5) / 2**23
    np.testing.assert_allclose(noise(99, 5, 0, len(ids)), -np.log(-np.log(uniform)), rtol=2e-7, atol=1e-6)


def test_a_closed_team_draws_no_more() -> None:
    with library.load().team(2) as short_lived:
        own = TeamSampler(short_lived)
        assert drawn(own, np.eye(3, dtype=np.float32), make_rows(3)).token_ids.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="closed"):
        own.sample(np.eye(3, dtype=np.float32), make_rows(3))


def test_the_vocabulary_and_the_number_of_rows_may_change_between_calls() -> None:
    own: Any = TeamSampler(team(2))
    for num_rows, vocab_size in ((1, 3000), (9, 7), (2, 100_000), (20, 3000), (1, 3)):
        rows = make_rows(num_rows, temperature=1, top_k=5, positions=np.arange(num_rows), num_logprobs=EVERY_RANK)
        assert_same(own, normal(num_rows, num_rows, vocab_size), rows)


def test_memory_of_an_earlier_call_is_not_pointed_at() -> None:
    use("")
    logits = normal(1, 2, 500)
    mine = TeamSampler(team(1))
    mine.sample(logits, make_rows(2, num_logprobs=3))
    assert mine._args.logprobs and mine._args.top_ids
    assert mine.sample(logits, make_rows(2)).logprobs is None
    assert not any(getattr(mine._args, name) for name in ("logprobs", "ranks", "top_ids", "top_logprobs"))
