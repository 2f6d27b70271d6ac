"""A token depends on model, prefix, parameters, seed and position, on nothing else: many setups, the same tokens."""

from __future__ import annotations

import pytest
from isotoken.core.types import FinishReason

from .chance import WORKLOAD, run_seed
from .world import Gold, make_gold

NUM_SETUPS = 104


@pytest.fixture(scope="module")
def gold() -> Gold:
    return make_gold(WORKLOAD)


@pytest.mark.parametrize("seed", range(NUM_SETUPS))
def test_tokens_do_not_depend_on_the_setup(gold: Gold, seed: int) -> None:
    run_seed(seed, gold)


def test_the_setups_reach_what_they_are_for(gold: Gold) -> None:
    """Preemptions and prefix hits happen, or the test above proves little."""
    worlds = [run_seed(seed, gold) for seed in range(0, NUM_SETUPS, 13)]
    assert sum(world.scheduler.num_preemptions for world in worlds) > 10
    assert sum(world.scheduler.num_prefix_hits for world in worlds) > 200
    assert {result.finish_reason for result in gold.values()} == {FinishReason.STOP, FinishReason.LENGTH}
