"""Requests whose parameters leave no token to draw: refused where that is known before, else ended where it shows."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.core.fold import NOTHING_LEFT
from isotoken.core.types import FinishReason

from .drafters import GarbageDrafter, KnowingDrafter
from .toy import VOCAB_SIZE, ToyRunner
from .world import EOS, Setup, World, make_request

LOST: list[dict[str, Any]] = [
    {"allowed_token_ids": (EOS,), "min_tokens": 1},
    {"allowed_token_ids": (EOS, 7), "stop_token_ids": frozenset({7}), "min_tokens": 2},
    {"allowed_token_ids": (7,), "bad_words_ids": ((7,),)},
    {"allowed_token_ids": (7, EOS), "bad_words_ids": ((7,), (8, 9)), "min_tokens": 3},
    {"bad_words_ids": tuple((token,) for token in range(VOCAB_SIZE))},
]


def make_world(**options: Any) -> World:
    return World.make(Setup(block_size=4, **options))


@pytest.mark.parametrize("options", LOST, ids=" ".join)
def test_a_request_that_could_never_draw_is_refused(options: dict[str, Any]) -> None:
    world = make_world()
    with pytest.raises(ValueError, match="no token may be drawn"):
        world.add(make_request("r", [1, 2], **options))
    assert not world.engine.has_work
    world.add(make_request("scored", [1, 2], **{**options, "max_tokens": 0, "min_tokens": 0}))  # it draws nothing
    assert world.run()["scored"].finish_reason == FinishReason.LENGTH


@pytest.mark.parametrize(
    "options",
    [
        {"allowed_token_ids": (EOS, 7), "min_tokens": 3, "ignore_eos": False},
        {"allowed_token_ids": (EOS,), "min_tokens": 3, "ignore_eos": True},
        {"allowed_token_ids": (7, 8), "bad_words_ids": ((7,),)},
    ],
    ids=str,
)
def test_one_token_is_enough(options: dict[str, Any]) -> None:
    world = make_world()
    world.add(make_request("r", [1, 2], max_tokens=4, temperature=1.0, **options))
    found = world.run()["r"]
    assert found.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert set(found.token_ids) <= set(options["allowed_token_ids"])


@pytest.mark.parametrize("token", [0, 7])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("drafter", [None, "right", "garbage"])
def test_a_request_that_comes_to_where_nothing_is_left_ends_there(
    token: int, temperature: float, drafter: str | None
) -> None:
    """A word of three tokens is bad and no other may come: the third cannot be drawn, not even token 0."""
    kinds: dict[str | None, Any] = {
        "right": lambda _: KnowingDrafter(3, {"lost": [token] * 9, "free": [5] * 9}),
        "garbage": lambda _: GarbageDrafter(2),
    }
    world = make_world(drafter=kinds.get(drafter))
    parameters = {"allowed_token_ids": (token,), "bad_words_ids": ((token,) * 3,), "temperature": temperature}
    world.add(make_request("lost", [1, 2], max_tokens=9, ignore_eos=True, **parameters))
    world.add(make_request("free", [1, 2], max_tokens=9, allowed_token_ids=(5,), ignore_eos=True))
    results = world.run()
    assert results["lost"].finish_reason == FinishReason.ERROR
    assert (results["lost"].token_ids, results["lost"].error) == ([token] * 2, NOTHING_LEFT)
    assert results["free"].token_ids == [5] * 9


def test_drafts_into_a_dead_end_change_nothing() -> None:
    """After 7 nothing could follow, but 7 is only guessed: 8 is drawn and the answer goes on."""
    parameters = {
        "allowed_token_ids": (7, 8),
        "bad_words_ids": ((7, 7), (7, 8)),
        "logit_bias": {8: 100.0},
        "max_tokens": 6,
    }
    world = make_world(drafter=lambda _: KnowingDrafter(3, {"r": [7] * 6}))
    world.add(make_request("r", [1, 2], ignore_eos=True, **parameters))
    found = world.run()["r"]
    assert (found.finish_reason, found.token_ids) == (FinishReason.LENGTH, [8] * 6)


def test_a_replayed_request_ends_where_the_first_run_would_have() -> None:
    world = World.make(Setup(block_size=4), ToyRunner(num_blocks=60, block_size=4))
    parameters = {"allowed_token_ids": (7,), "bad_words_ids": ((7, 7, 7),), "max_tokens": 9, "ignore_eos": True}
    world.add(make_request("r", [1, 2], output=[7, 7], **parameters))
    assert world.run()["r"].finish_reason == FinishReason.ERROR
