"""A batch cut into runs: nothing lost, nothing twice, every token in its place."""

from __future__ import annotations

import random

import numpy as np
import pytest
from isotoken.backends.rows import aligned, num_rows, plan_runs, tight
from isotoken.backends.rows.runs import Cover
from isotoken.core.batch import Batch, Int64
from isotoken.core.interfaces import RunnerConfig

MAX_LEN = 64


def make_batch(dice: random.Random, rows: list[int]) -> Batch:
    """A batch of one request in each of `rows`, with any lengths and any logits wanted."""
    lens = [dice.choice([1, 1, 1, 2, 5, 17]) for _ in rows]
    contexts = [dice.randrange(MAX_LEN - n) for n in lens]
    starts = np.cumsum([0, *lens])
    positions = np.concatenate([np.arange(c, c + n) for c, n in zip(contexts, lens, strict=True)])
    owners = np.repeat(np.arange(len(rows)), lens)
    wanted = sorted(dice.sample(range(starts[-1]), dice.randrange(starts[-1] + 1)))
    return Batch(
        input_ids=_int32([dice.randrange(1000) for _ in range(starts[-1])]),
        positions=_int32(positions),
        slot_mapping=_int32(np.array(rows)[owners] * MAX_LEN + positions),
        query_start_loc=_int32(starts),
        seq_lens=_int32(np.array(contexts) + lens),
        block_table=_int32(rows)[:, None],
        logits_indices=_int32(wanted),
        row_ids=_int32(range(len(rows))),
        block_copies=_int32(np.zeros((0, 3))),
        sampling=None,  # type: ignore[arg-type]  # not looked at
    )


@pytest.mark.parametrize("seed", range(40))
def test_every_token_is_computed_once_in_its_row(seed: int) -> None:
    dice = random.Random(seed)
    total = dice.choice([3, 8, 13, 24])
    batch = make_batch(dice, dice.sample(range(total), dice.randrange(1, total + 1)))
    cover: Cover = dice.choice([tight, aligned(total, dice.choice([1, 6, 8, 24]))])
    widths = dice.choice([(), (1,), (1, 4), (20,)])
    print(f"seed {seed}: {total} rows, widths {widths}")
    slots: dict[int, int] = {}  # where K/V went: token id
    logits: dict[int, int] = {}  # logits row: place in the batch
    for run in plan_runs(batch, cover, widths=widths):
        ends = np.cumsum(run.query_lens)
        for row, start, n, context in zip(
            run.rows, ends - run.query_lens, run.query_lens, run.context_lens, strict=True
        ):
            assert 0 <= row < run.num_rows
            assert n <= run.width
            for i, token in enumerate(run.tokens[start : start + n]):
                slot = (run.first_row + int(row)) * MAX_LEN + int(context) + i
                assert slot not in slots
                slots[slot] = int(batch.input_ids[token])
        assert run.first_row + run.num_rows <= total
        assert len(run.requests) == 1 or run.width <= max(widths)
        logits |= dict(zip(run.logits.tolist(), run.tokens[run.wanted].tolist(), strict=True))
    assert slots == dict(zip(batch.slot_mapping.tolist(), batch.input_ids.tolist(), strict=True))
    assert logits == dict(enumerate(batch.logits_indices.tolist()))


@pytest.mark.parametrize(("total", "largest"), [(8, 8), (64, 64), (10, 6), (100, 64), (5, 8)])
def test_aligned_windows_are_few(total: int, largest: int) -> None:
    seen: set[tuple[int, int]] = set()
    dice = random.Random(total)
    for _ in range(500):
        rows: Int64 = np.array(sorted(dice.sample(range(total), dice.randrange(1, total + 1))))
        windows = aligned(total, largest)(rows)
        assert all(any(first <= row < first + count for first, count in windows) for row in rows)
        assert all(first >= 0 and first + count <= total and count <= largest for first, count in windows)
        seen |= set(windows)
    assert len(seen) <= 3 * total + 2


def test_tight_windows_have_no_margin() -> None:
    assert tight(np.array([3, 4, 9])) == [(3, 7)]


def test_rows_are_what_was_asked_for_in_tokens() -> None:
    assert num_rows(RunnerConfig(max_num_seqs=7), 256) == 7
    assert num_rows(RunnerConfig(max_num_seqs=7, block_size=256, num_blocks=3), 256) == 3
    assert num_rows(RunnerConfig(max_num_seqs=7, block_size=16, num_blocks=160), 256) == 10
    assert num_rows(RunnerConfig(max_num_seqs=7, block_size=16, num_blocks=16), 256) == 7


def _int32(values: object) -> np.ndarray:
    return np.asarray(values, np.int32)
