"""Batches: what is laid out for a plan, and how runners that must split one take it apart."""

from __future__ import annotations

import random

import numpy as np
import pytest
from isotoken.core.batch import Batch
from isotoken.core.batch_builder import BatchBuilder
from isotoken.core.types import Request, Scheduled

from .toy import VOCAB_SIZE, ToyRunner
from .world import make_request

BLOCK_SIZE = 4


def make_builder() -> BatchBuilder:
    return BatchBuilder(max_num_seqs=8, block_size=BLOCK_SIZE, vocab_size=VOCAB_SIZE)


def place(request: Request, row: int, blocks: list[int]) -> Request:
    request.row_id, request.block_ids = row, list(blocks)
    return request


def mixed_plan() -> list[Scheduled]:
    """A decode, a chunk in the middle of a prompt, a verification, a scored prompt."""
    decode = place(make_request("decode", [1, 2, 3, 4, 5], output=[6], temperature=0.5, seed=3), 2, [7, 5])
    chunk = place(make_request("chunk", list(range(20))), 0, [1, 2, 3, 4, 6])
    verify = place(make_request("verify", [9, 8, 7], output=[6], top_k=5, frequency_penalty=1.0), 5, [8, 9])
    verify.draft_ids = [30, 31]
    scored = place(make_request("scored", [10, 11, 12], num_prompt_logprobs=2, num_logprobs=1, min_p=0.5), 1, [10])
    return [
        Scheduled(decode, 5, 1, 0, 1),
        Scheduled(chunk, 6, 7, 0, 0),
        Scheduled(verify, 3, 3, 2, 3),
        Scheduled(scored, 0, 3, 0, 3),
    ]


def test_a_plan_is_laid_out_flat() -> None:
    batch = make_builder().build(mixed_plan(), [(1, 2, 3)])
    assert batch.input_ids.tolist() == [6, 6, 7, 8, 9, 10, 11, 12, 6, 30, 31, 10, 11, 12]
    assert batch.positions.tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 3, 4, 5, 0, 1, 2]
    assert batch.slot_mapping.tolist() == [21, 10, 11, 12, 13, 14, 15, 16, 35, 36, 37, 40, 41, 42]
    assert batch.query_start_loc.tolist() == [0, 1, 8, 11, 14]
    assert batch.query_lens.tolist() == [1, 7, 3, 3] and batch.context_lens.tolist() == [5, 6, 3, 0]
    assert batch.seq_lens.tolist() == [6, 13, 6, 3]
    assert batch.block_table.tolist() == [[7, 5, 0, 0, 0], [1, 2, 3, 4, 6], [8, 9, 0, 0, 0], [10, 0, 0, 0, 0]]
    assert batch.logits_indices.tolist() == [0, 8, 9, 10, 11, 12, 13]
    assert batch.row_ids.tolist() == [2, 0, 5, 1] and batch.block_copies.tolist() == [[1, 2, 3]]


def test_each_logits_row_says_how_to_draw() -> None:
    rows = make_builder().build(mixed_plan()).sampling
    assert rows.positions.tolist() == [6, 4, 5, 6, 1, 2, 3]
    assert rows.target_ids.tolist() == [-1, -1, -1, -1, 11, 12, -1]
    assert rows.num_logprobs.tolist() == [-2, -2, -2, -2, 2, 2, 1]
    assert rows.seeds.tolist() == [3, 0, 0, 0, 0, 0, 0]
    assert rows.temperature.tolist() == [0.5, 1, 1, 1, 1, 1, 1]
    assert rows.top_k.tolist() == [0, 5, 5, 5, 0, 0, 0] and rows.min_p.tolist() == [0, 0, 0, 0, 0.5, 0.5, 0.5]
    pairs = list(zip(rows.bias_rows.tolist(), rows.bias_ids.tolist(), rows.bias_values.tolist(), strict=True))
    assert pairs == [(1, 6, -1), (2, 6, -1), (2, 30, -1), (3, 6, -1), (3, 30, -1), (3, 31, -1)]


def test_every_array_has_the_dtype_that_its_line_says() -> None:
    batch = make_builder().build(mixed_plan())
    arrays = {name: getattr(batch, name) for name in Batch.__slots__ if name != "sampling"}
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}
    rows = batch.sampling
    assert {
        name: str(getattr(rows, name).dtype) for name in ("temperature", "top_p", "min_p", "bias_values")
    } == dict.fromkeys(("temperature", "top_p", "min_p", "bias_values"), "float32")
    assert (rows.seeds.dtype, rows.positions.dtype, rows.top_k.dtype) == (np.uint64, np.int64, np.int32)


def test_a_row_follows_its_request_and_forgets_the_one_before() -> None:
    builder = make_builder()
    first = place(make_request("first", [1, 2, 3], logit_bias={4: 1.0}, num_prompt_logprobs=0), 3, [5])
    builder.build([Scheduled(first, 0, 3, 0, 3)])
    first.block_ids.append(6)
    assert builder.build([Scheduled(first, 2, 1, 0, 1)]).block_table.tolist() == [[5, 6]]
    second = place(make_request("second", [1, 2, 3], temperature=0.25), 3, [2])
    batch = builder.build([Scheduled(second, 0, 3, 0, 1)])
    assert batch.block_table.tolist() == [[2]] and batch.sampling.temperature.tolist() == [0.25]
    assert len(batch.sampling.bias_ids) == 0 and batch.sampling.target_ids.tolist() == [-1]


def test_block_tables_grow_wide() -> None:
    builder = make_builder()
    blocks = list(range(1000))
    request = place(make_request("r", [1] * 3999, output=[2]), 0, blocks)
    batch = builder.build([Scheduled(request, 3999, 1, 0, 1)])
    assert batch.block_table.tolist() == [blocks] and batch.slot_mapping.tolist() == [3999]


def test_edits_are_summed_so_that_each_token_stands_once() -> None:
    request = make_request(
        "r",
        [1, 2, 2],
        output=[5, 5, 6],
        repetition_penalty=1.5,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logit_bias={5: 3.0, 9: -1.0},
        bad_words_ids=((9,), (5, 6, 7), (6, 8), (1, 2, 3)),
        allowed_token_ids=(1, 33),
        min_tokens=4,
    )
    request.end_token_ids = frozenset({6, 50})
    place(request, 0, [1, 2])
    request.draft_ids = [6, 40]
    rows = make_builder().build([Scheduled(request, 5, 3, 2, 3)]).sampling
    penalties = [rows.penalty_ids[rows.penalty_rows == row].tolist() for row in range(3)]
    assert [sorted(ids) for ids in penalties] == [[1, 2, 5, 6], [1, 2, 5, 6], [1, 2, 5, 6, 40]]
    assert set(rows.penalty_values.tolist()) == {1.5}
    ban = float("-inf")
    biases = [
        dict(
            zip(
                rows.bias_ids[rows.bias_rows == row].tolist(),
                rows.bias_values[rows.bias_rows == row].tolist(),
                strict=True,
            )
        )
        for row in range(3)
    ]
    assert biases == [
        {5: 2.0, 6: ban, 9: ban, 50: ban, 7: ban, 8: ban},  # 5 5 6: both ends of words, too early to end
        {5: 2.0, 6: -1.0, 9: ban, 8: ban},  # 5 5 6 6
        {5: 2.0, 6: -1.0, 40: -0.75, 9: ban},  # 5 5 6 6 40
    ]
    assert rows.mask is not None and rows.mask.tolist() == [[2, 2, 0, 0]] * 3
    again = make_builder().build([Scheduled(request, 5, 1, 0, 1)]).sampling
    assert sorted(again.penalty_ids.tolist()) == [1, 2, 5, 6]


@pytest.mark.parametrize("seed", range(5))
def test_parts_give_the_logits_of_the_whole(seed: int) -> None:
    """Split at random, in any number of parts, on a real decoder."""
    draw = random.Random(seed)
    runner = ToyRunner(num_blocks=40, block_size=BLOCK_SIZE, max_num_batched_tokens=100)
    plan = []
    for row in range(6):
        tokens = [draw.randrange(VOCAB_SIZE) for _ in range(draw.randrange(2, 15))]
        request = place(make_request(str(row), tokens, logit_bias={row: 1.0}), row, list(range(4 * row, 4 * row + 4)))
        split = draw.randrange(1, len(tokens))
        runner.forward(make_builder().build([Scheduled(request, 0, split, 0, 0)]))
        plan.append(Scheduled(request, split, len(tokens) - split, 0, draw.randrange(len(tokens) - split + 1)))
    batch = make_builder().build(plan)
    whole = runner.forward(batch)
    members = [draw.randrange(3) for _ in plan]
    for part in range(3):
        chosen = [index for index, member in enumerate(members) if member == part]
        if not chosen:
            continue
        piece, rows = batch.select(chosen), batch.logits_rows(chosen)
        np.testing.assert_allclose(runner.forward(piece), whole[rows], atol=1e-12)
        assert piece.sampling.positions.tolist() == batch.sampling.positions[rows].tolist()
        biased = batch.sampling.bias_rows.tolist()
        expected = [(new, biased.index(row)) for new, row in enumerate(rows.tolist()) if row in biased]
        assert piece.sampling.bias_rows.tolist() == [new for new, _ in expected]
        assert piece.sampling.bias_ids.tolist() == [batch.sampling.bias_ids[old] for _, old in expected]
