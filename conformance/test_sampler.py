"""The runner's sampler against the rules, on its own logits: SEE-2 and SEE-3 in SPEC.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from isotoken.conformance.draw import draw
from isotoken.conformance.lab import Lab
from isotoken.conformance.rig import Array, greedy_rows, on_host
from isotoken.conformance.spec import spec
from isotoken.core.batch import SamplingRows
from isotoken.core.interfaces import Logits, Sampler
from isotoken.core.sampling import HostSampler
from isotoken.core.types import DecodeParams


def some_logits(lab: Lab) -> tuple[Logits, Array, Sampler]:
    """Logits of max_num_seqs requests as the runner gives them, the same on the host, and the runner's sampler."""
    rig = lab.rig()
    count = rig.runner.info.max_num_seqs
    work = [(rig.strand([9 + i, 40 + 3 * i, 77, 5 * i], row_id=i), 4, 1) for i in range(count)]
    logits = rig.runner.forward(rig.batch(work))
    return logits, on_host(logits), rig.runner.sampler or HostSampler()


def rows_of(params: list[DecodeParams], positions: list[int], x: Array) -> SamplingRows:
    """SamplingRows for one request a row; penalties are spread over some fixed tokens."""
    size = len(params)
    penalised = np.arange(0, x.shape[1], 3, dtype=np.int32)
    biased = np.arange(1, x.shape[1], 7, dtype=np.int32)
    rows = greedy_rows(
        size,
        temperature=np.array([p.temperature for p in params], np.float32),
        top_k=np.array([p.top_k for p in params], np.int32),
        top_p=np.array([p.top_p for p in params], np.float32),
        min_p=np.array([p.min_p for p in params], np.float32),
        seeds=np.array([p.seed for p in params], np.uint64),
        positions=np.array(positions, np.int64),
    )
    punished = [r for r, p in enumerate(params) if p.repetition_penalty != 1.0]
    punishments = [params[r].repetition_penalty for r in punished]
    taxed = [r for r, p in enumerate(params) if p.presence_penalty != 0.0]
    masked = [r for r, p in enumerate(params) if p.allowed_token_ids is not None]
    mask = np.full((size, -(-x.shape[1] // 32)), 0xFFFFFFFF, np.uint32)
    for r in masked:
        mask[r] = 0
        for token in params[r].allowed_token_ids or ():
            mask[r, token // 32] |= np.uint32(1 << (token % 32))
    return replace(
        rows,
        penalty_rows=np.repeat(np.array(punished, np.int32), len(penalised)),
        penalty_ids=np.tile(penalised, len(punished)),
        penalty_values=np.array(punishments, np.float32).repeat(len(penalised)),
        bias_rows=np.repeat(np.array(taxed, np.int32), len(biased)),
        bias_ids=np.tile(biased, len(taxed)),
        bias_values=np.repeat(np.array([-params[r].presence_penalty for r in taxed], np.float32), len(biased)),
        mask=mask if masked else None,
    )


def edited(x: Array, params: DecodeParams) -> Array:
    """What `rows_of` asks for, done to one row of logits [V]."""
    x = x.copy()
    if params.repetition_penalty != 1.0:
        some = x[::3]
        x[::3] = np.where(some > 0, some / params.repetition_penalty, some * params.repetition_penalty)
    if params.presence_penalty:
        x[1::7] -= params.presence_penalty
    if params.allowed_token_ids is not None:
        allowed = np.isin(np.arange(len(x)), params.allowed_token_ids)
        x[~allowed] = -np.inf
    return x


GRID = {
    "greedy": DecodeParams(temperature=0.0),
    "plain": DecodeParams(temperature=1.0),
    "cold": DecodeParams(temperature=0.05),
    "hot": DecodeParams(temperature=5.0),
    "top-k": DecodeParams(temperature=1.0, top_k=7),
    "top-k 1": DecodeParams(temperature=2.0, top_k=1),
    "top-k of more than there are": DecodeParams(temperature=1.0, top_k=5000),
    "top-p": DecodeParams(temperature=1.5, top_p=0.8),
    "top-p of next to nothing": DecodeParams(temperature=1.5, top_p=1e-6),
    "min-p": DecodeParams(temperature=1.5, min_p=0.1),
    "all filters": DecodeParams(temperature=1.2, top_k=12, top_p=0.9, min_p=0.02),
    "repetition": DecodeParams(temperature=1.0, repetition_penalty=1.8),
    "bias": DecodeParams(temperature=1.0, presence_penalty=3.0),
    "mask": DecodeParams(temperature=1.0, allowed_token_ids=(0, 31, 32, 63, 64, 95, 96, 127, 128, 130)),
    "greedy mask": DecodeParams(temperature=0.0, allowed_token_ids=(0, 31, 32, 127, 128, 130)),
    "everything": DecodeParams(
        temperature=0.9, top_k=30, top_p=0.95, min_p=0.01, repetition_penalty=1.3, presence_penalty=0.6,
        allowed_token_ids=tuple(range(0, 131, 2)),
    ),
}  # fmt: skip


def check(lab: Lab, named: list[tuple[str, DecodeParams]], positions: list[int]) -> None:
    """Draw one token a row and compare with the rules."""
    logits, host, sampler = some_logits(lab)
    host = host.astype(np.float32).astype(np.float64)  # which is what a sampler works on
    params = [p for _, p in named]
    tokens = sampler.sample(logits, rows_of(params, positions, host)).token_ids
    assert tokens.dtype == np.int32
    for row, (name, p) in enumerate(named):
        drawn = draw(edited(host[row], p), p, positions[row], 1e-6, int(tokens[row]))
        assert drawn.deficit <= drawn.tolerance, (
            f"{name}, seed {p.seed}, position {positions[row]}: drew {tokens[row]}, the rules give {drawn.token} "
            f"by {drawn.margin:.3g}"
        )


@spec("SEE-3")
@pytest.mark.parametrize("name", list(GRID))
def test_each_parameter(lab: Lab, name: str) -> None:
    count = lab.runner().info.max_num_seqs
    for turn in range(8):
        seeded = [replace(GRID[name], seed=(turn * 977 + r * 2**33) % 2**64) for r in range(count)]
        check(lab, [(name, p) for p in seeded], [turn * 50 + r + (2**33 if r % 3 == 2 else 0) for r in range(count)])


@spec("SEE-3")
def test_rows_of_every_kind_together(lab: Lab) -> None:
    count = lab.runner().info.max_num_seqs
    dice = np.random.default_rng(3)
    kinds = list(GRID)
    for _ in range(30):
        chosen = [kinds[i] for i in dice.integers(len(kinds), size=count)]
        mixed = [(kind, replace(GRID[kind], seed=int(dice.integers(2**63)))) for kind in chosen]
        check(lab, mixed, dice.integers(1, 10_000, count).tolist())


@spec("SEE-3")
def test_scoring_rows_and_logprobs(lab: Lab) -> None:
    logits, host, sampler = some_logits(lab)
    count = len(host)
    targets = np.array([-1 if r % 2 else (37 * r) % 131 for r in range(count)], np.int32)
    wanted = np.array([[-2, 0, 3, -1][r % 4] for r in range(count)], np.int32)
    rows = replace(rows_of([GRID["plain"]] * count, [5] * count, host), target_ids=targets, num_logprobs=wanted)
    mine, normal = sampler.sample(logits, rows), HostSampler().sample(np.float32(host), rows)
    assert np.array_equal(mine.token_ids, normal.token_ids)
    assert np.array_equal(mine.token_ids[targets >= 0], targets[targets >= 0])
    assert mine.logprobs is not None and mine.ranks is not None
    assert mine.top_ids is not None and mine.top_logprobs is not None
    assert normal.logprobs is not None and normal.ranks is not None
    assert normal.top_ids is not None and normal.top_logprobs is not None
    for r in np.flatnonzero(wanted > -2):
        assert abs(mine.logprobs[r] - normal.logprobs[r]) < 1e-4
        assert mine.ranks[r] == normal.ranks[r]
        width = host.shape[1] if wanted[r] < 0 else wanted[r]
        assert np.array_equal(mine.top_ids[r, :width], normal.top_ids[r, :width])
        assert abs(mine.top_logprobs[r, :width] - normal.top_logprobs[r, :width]).max(initial=0) < 1e-4


@spec("SEE-2")
@pytest.mark.parametrize("along", ["seeds", "positions"])
@pytest.mark.parametrize("name", ["plain", "all filters"])
def test_draws_follow_the_distribution(lab: Lab, along: str, name: str) -> None:
    """Chi-square over 6,000 draws of one row; the limit is passed by chance once in some ten thousand."""
    logits, host, sampler = some_logits(lab)
    row, p = 1, GRID[name]
    many = _repeat(logits, row, min(64, lab.runner().info.max_num_logits))
    draws: list[int] = []
    while len(draws) < 6000:
        numbers = range(len(draws), len(draws) + len(many))
        seeds = [replace(p, seed=n if along == "seeds" else 77) for n in numbers]
        positions = [9 if along == "seeds" else n for n in numbers]
        draws += sampler.sample(many, rows_of(seeds, positions, host)).token_ids.tolist()
    expected = _probabilities(host[row], p) * len(draws)
    seen = np.bincount(draws, minlength=host.shape[1])
    assert not seen[expected == 0].any(), "a filtered token was drawn"
    big = expected >= 8
    observed = np.append(seen[big], seen[~big].sum())
    due = np.append(expected[big], expected[~big].sum())
    due, observed = due[due > 0], observed[due > 0]
    chi_square, degrees = float(((observed - due) ** 2 / due).sum()), len(due) - 1
    limit = degrees * (1 - 2 / (9 * degrees) + 3.9 * np.sqrt(2 / (9 * degrees))) ** 3  # Wilson and Hilferty
    assert chi_square < limit, f"chi-square {chi_square:.1f} of {degrees} degrees of freedom, limit {limit:.1f}"


def _repeat(logits: Logits, row: int, count: int) -> Logits:
    """The same row, `count` times, in whatever the logits are made of."""
    return logits[[row] * count]


def _probabilities(x: Array, p: DecodeParams) -> Array:
    """The distribution that the parameters describe, [V], by the plainest means."""
    order = np.lexsort((np.arange(len(x)), -x))
    y = x[order] / p.temperature
    mass = np.exp(y - y[0])
    mass[p.top_k or len(x) :] = 0
    mass /= mass.sum()
    mass[np.cumsum(mass) - mass >= p.top_p] = 0
    mass[mass < p.min_p * mass[0]] = 0
    out = np.zeros(len(x))
    out[order] = mass / mass.sum()
    return out
