"""A request gets as many guesses as pay for it, none where none does, and another chance now and then."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isotoken.core.draft_pace import LAST_PAUSE, DraftPace, DraftPolicy, best_num_drafts

CHEAP = DraftPolicy(num_draft_tokens=7, verify_cost=0.06)


def speed(acceptance: float, num_drafts: int, price: float) -> float:
    """Tokens a step over what the step costs, term by term."""
    return sum(acceptance**index for index in range(num_drafts + 1)) / (1 + num_drafts * price)


@given(st.floats(0, 1), st.floats(0, 3), st.integers(0, 12))
def test_the_best_number_is_the_one_that_trying_all_finds(acceptance: float, price: float, most: int) -> None:
    best = best_num_drafts(acceptance, price, most)
    speeds = [speed(acceptance, count, price) for count in range(most + 1)]
    assert 0 <= best <= most
    assert speeds[best] == pytest.approx(max(speeds), rel=1e-9)


def test_the_first_guess_pays_where_it_is_right_more_often_than_it_costs() -> None:
    assert best_num_drafts(0.31, 0.3, 7) > 0 == best_num_drafts(0.29, 0.3, 7)
    assert best_num_drafts(1.0, 0.99, 7) == 7 and best_num_drafts(1.0, 1.0, 7) == 0


def test_a_guess_costs_more_the_more_requests_share_the_step() -> None:
    policy = DraftPolicy(num_draft_tokens=4, verify_cost=0.1, propose_cost=0.05)
    prices = [policy.price(num_requests) for num_requests in (1, 2, 8, 64, 10_000)]
    assert prices == sorted(prices)
    assert prices[0] == pytest.approx(0.15) and prices[-1] == pytest.approx(1.05, abs=0.01)


def run(pace: DraftPace, agreement: float, num_tokens: int, policy: DraftPolicy = CHEAP, seed: int = 0) -> list[int]:
    """How many guesses each step had, until a request alone has so many tokens."""
    dice = random.Random(seed)
    counts: list[int] = []
    while num_tokens > 0:
        count = pace.num_drafts(policy, 1)
        right = 0
        while right < count and dice.random() < agreement:
            right += 1
        if count:
            pace.note(count, right)
        counts.append(count)
        num_tokens -= 1 + right
    return counts


def test_a_drafter_that_is_never_right_is_left_alone_soon_and_asked_ever_more_seldom() -> None:
    pace = DraftPace()
    counts = run(pace, 0.0, 2000)
    assert pace.is_off
    cost = sum(counts) * CHEAP.verify_cost
    assert cost < 0.01 * len(counts), f"{sum(counts)} guesses for nothing"
    assert run(DraftPace(), 0.0, 128)[-60:].count(0) >= 58
    tries = [step for step, count in enumerate(counts) if count]
    pauses = [after - before for before, after in pairwise(tries) if after - before > 1]
    assert pauses == sorted(pauses) and pauses[-1] == LAST_PAUSE + 1


@pytest.mark.parametrize(("agreement", "least"), [(0.75, 2.2), (0.5, 1.45), (0.25, 1.0), (0.0, 0.97)])
def test_what_a_request_of_128_tokens_gains(agreement: float, least: float) -> None:
    """In steps of the model that the policy goes by: close to the best that a number known beforehand gives."""
    gains = []
    for seed in range(200):
        counts = run(DraftPace(), agreement, 128, seed=seed)
        gains.append(128 / sum(1 + count * CHEAP.verify_cost for count in counts))
    assert sum(gains) / len(gains) > least


def test_it_comes_back_when_guesses_begin_to_be_right() -> None:
    pace = DraftPace()
    run(pace, 0.0, 300)
    assert pace.is_off
    counts = run(pace, 1.0, 600)
    assert not pace.is_off
    assert counts[-20:] == [7] * 20 and pace.acceptance > 0.95


def test_where_each_guess_costs_a_whole_step_none_is_made() -> None:
    dear = DraftPolicy(num_draft_tokens=7, verify_cost=1.0)
    counts = run(DraftPace(), 1.0, 100, dear)
    assert sum(counts) == 0


def test_guesses_behind_a_wrong_one_say_nothing() -> None:
    one, other = DraftPace(), DraftPace()
    one.note(7, 2)
    other.note(3, 2)
    assert one.acceptance == other.acceptance
    all_right = DraftPace()
    all_right.note(2, 2)
    assert all_right.acceptance > other.acceptance


def test_a_try_that_came_to_nothing_is_made_again_in_the_next_step() -> None:
    """The drafter knew nothing, or there was no room: the wait does not begin anew."""
    pace = DraftPace()
    run(pace, 0.0, 100)
    while not pace.num_drafts(CHEAP, 1):
        pass
    assert [pace.num_drafts(CHEAP, 1) for _ in range(3)] == [1, 1, 1]
    pace.note(1, 0)
    assert pace.num_drafts(CHEAP, 1) == 0


def test_after_a_try_that_was_right_the_next_follows_at_once_after_a_wrong_one_later_than_before() -> None:
    pace = DraftPace()
    dear = DraftPolicy(num_draft_tokens=7, verify_cost=0.99)
    waits = []
    for right in (0, 0, 1, 1, 0):
        waited = 0
        while not pace.num_drafts(dear, 1):
            waited += 1
        waits.append(waited)
        pace.note(1, right)
    assert waits == [16, 32, 64, 0, 0]
    assert [pace.num_drafts(dear, 1, may_try=False) for _ in range(200)] == [0] * 200
    assert pace.num_drafts(dear, 1) == 1, "it had to wait for its turn only"


def test_the_same_guesses_give_the_same_steps() -> None:
    assert run(DraftPace(), 0.5, 500, seed=4) == run(DraftPace(), 0.5, 500, seed=4)
