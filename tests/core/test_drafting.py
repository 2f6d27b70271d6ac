"""A drafter is for speed only: when it fails the engine goes on without it, and says so once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from isotoken.core.draft_pace import DraftPolicy
from isotoken.core.drafting import TRY_EVERY
from isotoken.core.types import Request, StepStats

from .drafters import GarbageDrafter, KnowingDrafter
from .toy import VOCAB_SIZE, ToyRunner
from .world import Setup, World, make_request

PROMPTS = {"a": [1, 2, 3], "b": [4, 5], "c": [6]}
OPTIONS: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True, "temperature": 0.8, "seed": 3}


class Failing(KnowingDrafter):
    """Right until its third proposal, or its first release, which fail as told."""

    def __init__(self, how: str, outputs: dict[str, list[int]]) -> None:
        super().__init__(2, outputs)
        self.how = how
        self.calls = 0
        self.closed = 0

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        self.calls += 1
        drafts = super().propose(requests)
        if self.calls < 3:
            return drafts
        if self.how == "raises":
            raise RuntimeError("the draft model is broken")
        if self.how == "runs out of memory":
            raise MemoryError
        if self.how == "forgets one":
            return drafts[1:]
        if self.how == "guesses beyond the vocabulary":
            return [[VOCAB_SIZE] for _ in requests]
        if self.how == "guesses below it":
            return [[-1] for _ in requests]
        return drafts

    def release(self, request_id: str) -> None:
        if self.how == "cannot release":
            raise KeyError(request_id)

    def close(self) -> None:
        self.closed += 1
        if self.how == "runs out of memory":
            raise RuntimeError("nor can it close")


def results(world: World) -> dict[str, list[int]]:
    for name, prompt in PROMPTS.items():
        world.add(make_request(name, prompt, **OPTIONS))
    return {name: result.token_ids for name, result in world.run().items()}


@pytest.mark.parametrize(
    "how",
    [
        "raises",
        "runs out of memory",
        "forgets one",
        "guesses beyond the vocabulary",
        "guesses below it",
        "cannot release",
    ],
)
def test_a_drafter_that_fails_is_switched_off(how: str, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[StepStats] = []
    expected = results(World.make(Setup(block_size=4), ToyRunner(num_blocks=60, block_size=4)))
    drafter = Failing(how, expected)
    runner = ToyRunner(num_blocks=60, block_size=4)
    world = World.make(Setup(block_size=4, drafter=lambda _: drafter), runner, on_step=seen.append)
    with caplog.at_level(logging.ERROR, "isotoken.engine"):
        assert results(world) == expected
    assert sum(stats.num_drafter_failures for stats in seen) == 1
    assert drafter.closed == 1
    failures = [record for record in caplog.records if "switched off" in record.message]
    assert len(failures) == 1 and failures[0].exc_info is not None
    assert sum(stats.num_drafted for stats in seen) > 0, "it was of use before"
    calls, num_seen = drafter.calls, len(seen)
    world.add(make_request("again", [1, 2, 3], **OPTIONS))
    assert world.run()["again"].token_ids == expected["a"]
    assert drafter.calls == calls and all(stats.num_drafted == 0 for stats in seen[num_seen:])
    world.engine.close()
    assert drafter.closed == 1


def test_a_drafter_that_cannot_be_closed_does_not_keep_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(ToyRunner, "close", lambda self: closed.append("runner"))
    world = World.make(Setup(drafter=lambda _: Failing("runs out of memory", {})))
    with pytest.raises(RuntimeError, match="nor can it close"):
        world.engine.close()
    assert closed == ["runner"]


def test_a_drafter_that_fails_at_an_abort_is_switched_off() -> None:
    seen: list[StepStats] = []
    drafter = Failing("cannot release", {"a": [0] * 12})
    runner = ToyRunner(num_blocks=60, block_size=4)
    world = World.make(Setup(block_size=4, drafter=lambda _: drafter), runner, on_step=seen.append)
    world.add(make_request("a", [1, 2, 3], **OPTIONS))
    world.step()
    assert world.engine.abort("a")
    world.add(make_request("b", [1, 2, 3], **OPTIONS))
    assert len(world.run()["b"].token_ids) == 12
    assert [stats.num_drafter_failures for stats in seen].count(1) == 1


# --- as many guesses as pay ---------------------------------------------------------------------

POLICY = DraftPolicy(num_draft_tokens=4, verify_cost=0.06)
LONG: dict[str, Any] = {"max_tokens": 90, "ignore_eos": True}


NEVER_ZERO = tuple(range(1, 80))
"""Nor an end: so that a guess of 0 is never right."""


class Asked(KnowingDrafter):
    """Notes who was asked for how many guesses, and makes `num_tokens` of them all the same."""

    def __init__(self, num_tokens: int, outputs: dict[str, list[int]], p: float) -> None:
        super().__init__(num_tokens, outputs, p)
        self.asked: list[dict[str, int | None]] = []

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        self.asked.append({request.id: request.max_drafts for request in requests})
        return super().propose(requests)


def answer(setup: Setup, **options: Any) -> tuple[dict[str, list[int]], list[StepStats]]:
    seen: list[StepStats] = []
    runner = ToyRunner(num_blocks=100, block_size=4, max_num_batched_tokens=256)
    world = World.make(setup, runner, on_step=seen.append)
    for seed, (name, prompt) in enumerate(PROMPTS.items()):
        world.add(make_request(name, prompt, seed=seed, **LONG | options))
    return {name: result.token_ids for name, result in world.run().items()}, seen


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_the_number_of_guesses_changes_no_token(p: float, temperature: float) -> None:
    expected, plain = answer(Setup(block_size=4), temperature=temperature)
    drafter = Asked(4, expected, p)
    got, seen = answer(Setup(block_size=4, drafter=lambda _: drafter, draft_policy=POLICY), temperature=temperature)
    assert got == expected
    assert sum(stats.num_drafted for stats in seen) > 0
    again = Asked(4, expected, p)
    _, repeated = answer(Setup(block_size=4, drafter=lambda _: again, draft_policy=POLICY), temperature=temperature)
    assert again.asked == drafter.asked, "time or chance decided"
    assert len(repeated) == len(seen) < len(plain) + (p == 0.0)


def test_where_none_pays_guessing_stops_and_the_numbers_say_so() -> None:
    drafter = Asked(4, {name: [0] * 90 for name in PROMPTS}, 0.0)
    _, seen = answer(Setup(block_size=4, drafter=lambda _: drafter, draft_policy=POLICY), temperature=0.9)
    assert sum(stats.num_draft_stops for stats in seen) >= 3
    last = seen[len(seen) // 2 : -2]
    assert sum(stats.num_drafted for stats in last) <= len(last) // 4, "a try now and then"
    for before, stats in pairwise(last):
        assert before.num_undrafted + stats.num_drafted >= 3, "each request is either undrafted or has a try"
    assert sum(len(asked) for asked in drafter.asked) < 3 * 90 // 3


def test_one_request_stops_and_the_other_goes_on() -> None:
    expected, _ = answer(Setup(block_size=4), temperature=0.0)
    drafter = Asked(4, expected | {"a": [0] * 90}, 1.0)
    got, _ = answer(Setup(block_size=4, drafter=lambda _: drafter, draft_policy=POLICY), temperature=0.0)
    assert got == expected
    asked = {name: [each[name] for each in drafter.asked if name in each] for name in PROMPTS}
    assert len(asked["b"]) < 30 and asked["b"][-1] == 4
    assert 1 <= len(asked["a"]) < 30 and asked["a"][-1] == 1


def test_a_drafter_that_makes_more_than_pay_is_cut_short() -> None:
    expected, _ = answer(Setup(block_size=4), temperature=0.0)
    policy = DraftPolicy(num_draft_tokens=2, verify_cost=0.01)
    _, seen = answer(
        Setup(block_size=4, drafter=lambda _: KnowingDrafter(9, expected), draft_policy=policy), temperature=0.0
    )
    assert max(stats.num_drafted for stats in seen) == 2 * len(PROMPTS)


def test_in_company_a_guess_must_be_surer() -> None:
    """The same drafter is listened to where requests are few, and not where they fill the step."""
    guesses = {}
    for company in (1, 8):
        drafter = GarbageDrafter(4)
        seen: list[StepStats] = []
        policy = DraftPolicy(num_draft_tokens=4, verify_cost=0.5)
        runner = ToyRunner(num_blocks=200, block_size=8)
        world = World.make(
            Setup(block_size=8, drafter=lambda _, d=drafter: d, draft_policy=policy), runner, on_step=seen.append
        )
        for index in range(company):
            world.add(make_request(str(index), [index + 1], max_tokens=4, ignore_eos=True))
        world.run()
        guesses[company] = sum(stats.num_drafted for stats in seen)
    assert guesses[1] > 0 == guesses[8]


def test_guesses_that_are_only_tried_are_tried_together() -> None:
    """Requests that came at different times have their tries in the same steps."""
    drafter = Asked(4, {str(index): [0] * 200 for index in range(5)}, 0.0)
    seen: list[StepStats] = []
    runner = ToyRunner(num_blocks=300, block_size=4)
    world = World.make(Setup(block_size=4, drafter=lambda _: drafter, draft_policy=POLICY), runner, on_step=seen.append)
    for index in range(5):
        world.add(make_request(str(index), [index + 1], max_tokens=100, allowed_token_ids=NEVER_ZERO, seed=index))
        world.step()
    world.run()
    tries = [step for step, stats in enumerate(seen) if step > 30 and stats.num_drafted]
    assert tries and len({step % TRY_EVERY for step in tries}) == 1
    assert max(seen[step].num_drafted for step in tries) > 1


def test_what_was_learnt_goes_with_the_request() -> None:
    drafter = Asked(4, {"a": [0] * 90}, 1.0)
    world = World.make(
        Setup(block_size=4, drafter=lambda _: drafter, draft_policy=POLICY), ToyRunner(num_blocks=60, block_size=4)
    )
    for _ in range(2):
        world.add(make_request("a", [1, 2, 3], **LONG))
        world.run()
        world.results.clear()
        assert drafter.asked[0] == {"a": 4}
        drafter.asked.clear()
    world.add(make_request("a", [1, 2, 3], **LONG))
    world.step()
    assert world.engine._drafting._paces
    world.engine.abort("a")
    assert not world.engine._drafting._paces
