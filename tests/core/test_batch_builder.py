"""A builder that keeps what stays the same gives the very batches of one that begins anew at each step."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Batch, SamplingRows
from isotoken.core.batch_builder import BatchBuilder
from isotoken.core.types import Request, Scheduled

from .toy import VOCAB_SIZE
from .world import make_request

NUM_ROWS, BLOCK_SIZE = 6, 4


def make_builder() -> BatchBuilder:
    return BatchBuilder(max_num_seqs=NUM_ROWS, block_size=BLOCK_SIZE, vocab_size=VOCAB_SIZE)


def arrays(part: Batch | SamplingRows) -> dict[str, Any]:
    """Its arrays by name. Edits stand in any order."""
    found = {field.name: getattr(part, field.name) for field in fields(part) if field.name != "sampling"}
    for kind in ("penalty", "bias") if isinstance(part, SamplingRows) else ():
        names = [f"{kind}_{what}" for what in ("rows", "ids", "values")]
        order = np.lexsort((found[names[1]], found[names[0]]))
        found |= {name: found[name][order] for name in names}
    return found


def check_equal(found: Batch, due: Batch) -> None:
    for mine, wanted in ((found, due), (found.sampling, due.sampling)):
        found_arrays = arrays(mine)
        for name, value in arrays(wanted).items():
            if value is None:
                assert found_arrays[name] is None, name
            else:
                assert found_arrays[name].dtype == value.dtype, name
                np.testing.assert_array_equal(found_arrays[name], value, err_msg=name)


class World:
    """Requests that come, decode for a while, are verified, preempted, and leave."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.count = dice, 0
        self.rows = list(range(NUM_ROWS))
        self.running: list[Request] = []

    def come(self) -> None:
        if not self.rows:
            return
        dice = self.dice
        changes: dict[str, Any] = dice.choice(
            [{}, {}, {"temperature": 0.5, "seed": 3}, {"frequency_penalty": 1.0}, {"num_prompt_logprobs": 1}]
        )
        tokens = [dice.randrange(VOCAB_SIZE) for _ in range(dice.randint(1, 9))]
        request = make_request(f"r{self.count}", tokens, **changes)
        self.count += 1
        request.row_id = self.rows.pop(dice.randrange(len(self.rows)))
        self.running.insert(dice.randint(0, len(self.running)), request)

    def leave(self) -> None:
        if self.running:
            request = self.running.pop(self.dice.randrange(len(self.running)))
            self.rows.append(request.row_id)

    def preempt(self) -> None:
        """It comes back at once, maybe in another row: only its list of blocks tells."""
        if self.running:
            request = self.dice.choice(self.running)
            self.rows.append(request.row_id)
            request.row_id = self.rows.pop(self.dice.randrange(len(self.rows)))
            request.block_ids, request.num_computed_tokens = [], 0

    def plan(self) -> list[Scheduled]:
        plan = []
        for request in self.running:
            start, known = request.num_computed_tokens, len(request.token_ids)
            request.draft_ids = [self.dice.randrange(VOCAB_SIZE) for _ in range(self.dice.choice([0, 0, 0, 2]))]
            num_drafts = len(request.draft_ids) if start == known - 1 else 0
            end = known + num_drafts
            while len(request.block_ids) * BLOCK_SIZE < end:
                request.block_ids.append(self.dice.randrange(100))
            num_logits = end - start if request.params.num_prompt_logprobs is not None else 1 + num_drafts
            plan.append(Scheduled(request, start, end - start, num_drafts, num_logits))
        return plan

    def fold(self) -> None:
        for request in self.running:
            request.num_computed_tokens = len(request.token_ids)
            request.token_ids.append(self.dice.randrange(VOCAB_SIZE))
            request.draft_ids = []


@pytest.mark.parametrize("seed", range(30))
def test_a_builder_that_remembers_gives_what_one_without_memory_gives(seed: int) -> None:
    dice = random.Random(seed)
    world, builder = World(dice), make_builder()
    for _ in range(60):
        for _ in range(dice.choice([0, 0, 0, 0, 1, 2])):  # mostly nothing: then requests decode on and on
            dice.choice([world.come, world.come, world.leave, world.preempt])()
        if plan := world.plan():
            check_equal(builder.build(plan), make_builder().build(plan))
            world.fold()


def test_a_batch_stays_as_it_was_when_later_ones_are_built() -> None:
    request = make_request("r", list(range(7)))
    request.row_id, request.block_ids = 2, [5, 6]
    builder = make_builder()
    batches, copies = [], []
    for start in range(7, 20):
        request.token_ids.append(start)
        if start % BLOCK_SIZE == 0:
            request.block_ids.append(start)
        batches.append(builder.build([Scheduled(request, start, 1, 0, 1)]))
        copies.append({name: np.copy(value) for name, value in arrays(batches[-1]).items()})
    for batch, copy in zip(batches, copies, strict=True):
        for name, value in copy.items():
            np.testing.assert_array_equal(getattr(batch, name), value, err_msg=name)
    assert batches[0].logits_indices is batches[1].logits_indices, "what stays is not made again"
    assert batches[0].block_table is not batches[1].block_table, "7, and 8 in a new block"
