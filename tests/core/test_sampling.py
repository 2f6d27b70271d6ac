"""The normative sampler against known answers, a plain transcription of its definition, and the distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from isotoken.core.batch import NOT_A_NUMBER, Float32, SamplingRows
from isotoken.core.logits_edits import pack_mask
from isotoken.core.sampling import HostSampler, choice_seed, gumbel, philox4x32_10, splitmix64

SAMPLER = HostSampler()


def make_rows(num_rows: int, **given_fields: Any) -> SamplingRows:
    """Greedy rows at position 0, except for what is given; scalars are spread over the rows."""
    fields: dict[str, tuple[Any, Any]] = {
        "temperature": (np.float32, 0),
        "top_k": (np.int32, 0),
        "top_p": (np.float32, 1),
        "min_p": (np.float32, 0),
        "seeds": (np.uint64, 0),
        "positions": (np.int64, 0),
        "target_ids": (np.int32, -1),
        "num_logprobs": (np.int32, -2),
    }
    values = {
        name: np.broadcast_to(np.asarray(given_fields.get(name, default), dtype), num_rows).copy()
        for name, (dtype, default) in fields.items()
    }
    for name, dtype in [("penalty", np.float32), ("bias", np.float32)]:
        triples = given_fields.get(name, [])
        values[f"{name}_rows"] = np.array([row for row, _, _ in triples], np.int32)
        values[f"{name}_ids"] = np.array([token for _, token, _ in triples], np.int32)
        values[f"{name}_values"] = np.array([value for _, _, value in triples], dtype)
    return SamplingRows(**values, mask=given_fields.get("mask"))


def philox_words(key: int, counter: tuple[int, int, int, int]) -> list[int]:
    words = philox4x32_10(np.array([key], np.uint64), tuple(np.array([c], np.uint64) for c in counter))
    return [int(word[0]) for word in words]


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [  # from Random123's kat_vectors
        (0, (0, 0, 0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (2**64 - 1, (2**32 - 1,) * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            0x299F31D0A4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(key: int, counter: tuple[int, int, int, int], words: list[int]) -> None:
    assert philox_words(key, counter) == words


def test_splitmix64_gives_the_published_words() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(1234567) == 6457827717110365317
    assert splitmix64(2**64 + 5) == splitmix64(5)


def test_the_first_choice_keeps_the_seed_and_the_others_do_not() -> None:
    assert choice_seed(7, 0) == 7
    assert choice_seed(7, 2) == splitmix64(9)
    assert choice_seed(2**64 - 1, 1) == splitmix64(0)


@given(
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**40),
    ids=st.lists(st.integers(0, 200_000), min_size=1, max_size=20, unique=True),
)
@settings(max_examples=60, deadline=None)
def test_noise_is_that_of_the_formula_wherever_the_token_stands(seed: int, position: int, ids: list[int]) -> None:
    chosen = np.array(sorted(ids))
    n = len(chosen)
    noise = gumbel(np.full(n, seed, np.uint64), np.full(n, position), chosen)
    for token, value in zip(chosen.tolist(), noise, strict=True):
        word = philox_words(seed, (token >> 2, position & 0xFFFFFFFF, position >> 32, 0))[token & 3]
        uniform = ((word >> 9) + 0.5) * 2.0**-23
        assert value == pytest.approx(-math.log(-math.log(uniform)), rel=1e-6, abs=1e-6)


def test_extreme_bits_give_finite_noise_within_the_span() -> None:
    """The smallest and largest uniforms; 32-bit ones would round to 1."""
    for bits in (0, 2**32 - 1):
        uniform = np.float32((bits >> 9) + np.float32(0.5)) * np.float32(2.0**-23)
        assert 0 < uniform < 1 and -2.9 < -np.log(-np.log(uniform)) < 16.7


def edited(x: Float32, rows: SamplingRows, row: int) -> Float32:
    """Step 1 for one row in plain Python: penalties, biases, mask."""
    x = x.copy()
    for r, token, value in zip(rows.penalty_rows, rows.penalty_ids, rows.penalty_values, strict=True):
        if r == row:
            x[token] = x[token] / value if x[token] > 0 else x[token] * value
    for r, token, value in zip(rows.bias_rows, rows.bias_ids, rows.bias_values, strict=True):
        if r == row:
            x[token] += value
    if rows.mask is not None:
        for token in range(len(x)):
            if not rows.mask[row, token // 32] >> np.uint32(token % 32) & 1:
                x[token] = -np.inf
    return x


def transcribed(x: Float32, rows: SamplingRows, row: int) -> int:
    """Steps 2 and 3 for one row in plain Python over the whole vocabulary."""
    if rows.temperature[row] == 0 or np.isneginf(x.max()):
        return int(x.argmax())
    y = x / rows.temperature[row]
    order = sorted(range(len(y)), key=lambda token: (-y[token], token))
    if rows.top_k[row] > 0:
        order = order[: rows.top_k[row]]
    weights = [math.exp(float(y[token]) - float(y[order[0]])) for token in order]
    kept, before = [], 0.0
    for token, weight in zip(order, weights, strict=True):
        if (before < rows.top_p[row] or rows.top_p[row] >= 1 or not kept) and weight >= rows.min_p[row]:
            kept.append(token)
        before += weight / sum(weights)
    best, best_score = -1, -np.inf
    for token in sorted(kept):
        position = int(rows.positions[row])
        word = philox_words(int(rows.seeds[row]), (token >> 2, position & 0xFFFFFFFF, position >> 32, 0))[token & 3]
        uniform = np.float32((word >> 9) + 0.5) * np.float32(2.0**-23)
        score = y[token] - np.log(-np.log(uniform))
        if score > best_score:
            best, best_score = token, score
    return best


@given(seed=st.integers(0, 2**32 - 1))
@example(seed=194325875)  # everything that is allowed is banned
@settings(max_examples=80, deadline=None)
def test_rows_are_what_the_text_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    num_rows, vocab_size = int(random.integers(1, 6)), int(random.integers(2, 70))
    logits = (random.standard_normal((num_rows, vocab_size)) * random.choice([0.5, 4, 15])).astype(np.float32)
    logits[random.random(logits.shape) < 0.1] = 0.25  # ties
    mask = [pack_mask(np.flatnonzero(random.random(vocab_size) < 0.7).tolist() or [0], vocab_size) for _ in logits]
    pairs = [(row, token) for row in range(num_rows) for token in range(vocab_size) if random.random() < 0.3]
    rows = make_rows(
        num_rows,
        temperature=random.choice([0, 0.3, 1, 1.7], num_rows),
        top_k=random.choice([0, 1, 3, 20, 1000], num_rows),
        top_p=random.choice([1, 0.9, 0.3, 0.01], num_rows),
        min_p=random.choice([0, 0.05, 0.5], num_rows),
        seeds=random.integers(0, 2**63, num_rows),
        positions=random.integers(0, 2**34, num_rows),
        penalty=[(row, token, random.choice([0.8, 1.5])) for row, token in pairs],
        bias=[(row, token, random.choice([-1.5, 2.0, -np.inf])) for row, token in pairs[::2]],
        mask=np.stack(mask) if random.random() < 0.5 else None,
    )
    with np.errstate(all="ignore"):
        expected = [transcribed(edited(logits[row], rows, row), rows, row) for row in range(num_rows)]
    assert SAMPLER.sample(logits, rows).token_ids.tolist() == expected


@pytest.mark.parametrize(
    ("filters", "kept"),
    [({}, 12), ({"top_k": 5}, 5), ({"top_p": 0.8}, None), ({"min_p": 0.2}, None), ({"top_k": 6, "top_p": 0.7}, None)],
)
def test_draws_follow_the_distribution(filters: dict[str, Any], kept: int | None) -> None:
    """Chi-square over 20,000 positions of one seed, at the 0.1 % level."""
    num_draws, temperature = 20_000, 0.8
    x = np.array([2.0, 1.5, 1.5, 1.0, 0.5, 0.2, 0.0, -0.3, -1.0, -1.0, -1.5, -2.0], np.float32)
    p = np.exp(x / temperature)
    order = np.argsort(-x, kind="stable")
    allowed = order[: filters.get("top_k", len(x))]
    q = p[allowed] / p[allowed].sum()
    allowed = allowed[(np.cumsum(q) - q < filters.get("top_p", 2)) & (q >= filters.get("min_p", 0) * q[0])]
    assert kept is None or len(allowed) == kept
    rows = make_rows(num_draws, temperature=temperature, seeds=99, positions=np.arange(num_draws), **filters)
    counts = np.bincount(SAMPLER.sample(np.tile(x, (num_draws, 1)), rows).token_ids, minlength=len(x))
    assert counts.sum() == counts[allowed].sum()
    expected = p[allowed] / p[allowed].sum() * num_draws
    statistic = ((counts[allowed] - expected) ** 2 / expected).sum()
    df = len(allowed) - 1
    limit = df * (1 - 2 / (9 * df) + 3.09 * math.sqrt(2 / (9 * df))) ** 3  # Wilson and Hilferty
    assert statistic < limit, (counts, expected)


def test_a_row_does_not_depend_on_its_company() -> None:
    random = np.random.default_rng(5)
    logits = random.standard_normal((40, 3000)).astype(np.float32) * 3
    rows = make_rows(
        40,
        temperature=random.choice([0, 0.7, 1.2], 40),
        top_k=random.choice([0, 50], 40),
        top_p=random.choice([1, 0.9], 40),
        seeds=np.arange(40),
        positions=np.arange(40) * 7,
        bias=[(row, row * 3, 4.0) for row in range(0, 40, 2)],
        num_logprobs=random.choice([-2, 0, 5], 40),
    )
    together = SAMPLER.sample(logits, rows)
    for chosen in (np.arange(39, -1, -1), np.array([3]), np.array([8, 9, 30])):
        apart = SAMPLER.sample(logits[chosen], rows.select(chosen))
        assert apart.token_ids.tolist() == together.token_ids[chosen].tolist()


def test_ties_go_to_the_lowest_id() -> None:
    logits = np.zeros((1, 50), np.float32)
    assert SAMPLER.sample(logits, make_rows(1)).token_ids.tolist() == [0]
    rows = make_rows(200, temperature=1, top_k=3, positions=np.arange(200))
    assert set(SAMPLER.sample(np.zeros((200, 50)), rows).token_ids.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("value", [-np.inf, np.inf])
def test_useless_logits_still_give_a_token(value: float) -> None:
    """And no warning, such as when everything that is allowed is banned."""
    logits = np.full((3, 9), value, np.float32)
    tokens = SAMPLER.sample(logits, make_rows(3, temperature=[0, 1, 1], top_p=0.5, top_k=[0, 0, 3])).token_ids
    assert tokens.tolist() == [0, 0, 0]


def test_a_row_that_holds_nan_has_no_token_and_the_others_do_not_mind() -> None:
    logits = np.zeros((4, 9), np.float32)
    logits[:3, 5], logits[3, 2] = np.nan, 1.0
    rows = make_rows(4, temperature=[0, 1, 0, 0], target_ids=[-1, -1, 7, -1], num_logprobs=2)
    sampled = SAMPLER.sample(logits, rows)
    assert sampled.token_ids.tolist() == [NOT_A_NUMBER, NOT_A_NUMBER, 7, 2]
    assert sampled.ranks is not None and sampled.ranks[3] == 1
    mask = np.full((4, 1), 0b000011111, np.uint32)  # without token 5
    masked = SAMPLER.sample(logits, make_rows(4, mask=mask))
    assert masked.token_ids.tolist() == [0, 0, 0, 2]


def test_logprobs_are_of_the_raw_logits_with_ranks_and_ties_by_lowest_id() -> None:
    logits = np.array([[1, 3, 3, 0], [0, 0, 0, 5]], np.float32)
    rows = make_rows(2, target_ids=[-1, 1], num_logprobs=[3, -1], bias=[(0, 0, 10.0)])
    sampled = SAMPLER.sample(logits, rows)
    assert sampled.token_ids.tolist() == [0, 1]
    assert sampled.logprobs is not None and sampled.ranks is not None
    assert sampled.top_ids is not None and sampled.top_logprobs is not None
    assert sampled.ranks.tolist() == [3, 2]
    assert sampled.top_ids[0, :3].tolist() == [1, 2, 0] and sampled.top_ids[1].tolist() == [3, 0, 1, 2]
    log_softmax = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    assert sampled.logprobs == pytest.approx([log_softmax[0, 0], log_softmax[1, 1]], abs=1e-6)
    assert sampled.top_logprobs[0, :3] == pytest.approx(log_softmax[0, [1, 2, 0]], abs=1e-6)


def test_nobody_pays_for_logprobs_that_nobody_asked_for() -> None:
    assert SAMPLER.sample(np.zeros((3, 5)), make_rows(3)).logprobs is None
