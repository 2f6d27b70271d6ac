"""A drafter is for speed only: when it fails the engine goes on without it, and says so once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from isotoken.core.types import Request, StepStats

from .drafters import KnowingDrafter
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
