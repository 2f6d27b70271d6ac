"""Drafters guess well where they can, forget what ended, and never stand in the way."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isotoken.core.types import DecodeParams, Request, StepStats
from isotoken.plugins.drafters import DrafterContext, ngram_index
from isotoken.plugins.drafters.model import ModelDrafter
from isotoken.plugins.drafters.ngram import NgramDrafter

from ..core.toy import ToyRunner
from ..core.world import Setup, World, make_request

INFO = ToyRunner(num_blocks=8, block_size=16).info


def make_ngram(num_tokens: int = 4) -> NgramDrafter:
    return NgramDrafter(DrafterContext(num_draft_tokens=num_tokens, info=INFO))


def guess(drafter: Any, tokens: list[int]) -> list[int]:
    request = Request(id="r", token_ids=list(tokens), num_prompt_tokens=1, params=DecodeParams())
    (drafts,) = drafter.propose([request])
    assert request.token_ids == tokens and request.draft_ids == []
    return list(drafts)


# --- prompt look-up -----------------------------------------------------------------------------


def test_it_says_what_followed_the_last_tokens_before() -> None:
    assert guess(make_ngram(), [1, 2, 3, 4, 5, 6, 9, 2, 3]) == [4, 5, 6, 9]


def test_longer_matches_come_first_and_newer_ones_among_equals() -> None:
    assert guess(make_ngram(2), [7, 1, 2, 50, 51, 8, 1, 2, 60, 61, 7, 1, 2]) == [50, 51]
    assert guess(make_ngram(2), [1, 2, 50, 51, 1, 2, 60, 61, 1, 2]) == [60, 61]


def test_a_loop_is_drafted_on_in_full_length() -> None:
    assert guess(make_ngram(7), [5, 6, 7, 5, 6, 7]) == [5, 6, 7, 5, 6, 7, 5]


def test_nothing_familiar_gives_no_drafts() -> None:
    assert guess(make_ngram(), [1, 2, 3, 4]) == [] == guess(make_ngram(), [1])


def test_release_forgets() -> None:
    drafter = make_ngram()
    assert guess(drafter, [1, 2, 3, 1, 2]) and len(drafter._indices) == 1
    drafter.release("r")
    drafter.release("never here")
    assert not drafter._indices


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.data())
def test_growing_bit_by_bit_gives_what_looking_from_scratch_does(tokens: list[int], data: st.DataObject) -> None:
    drafter, length = make_ngram(5), 0
    while length < len(tokens):
        length = data.draw(st.integers(length + 1, len(tokens)))
        assert guess(drafter, tokens[:length]) == looked_up(tokens[:length], 5)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_an_index_made_in_bulk_finds_the_same(tokens: list[int], data: st.DataObject) -> None:
    """Short prompts are taken for long ones, and none is indexed as a whole at once."""
    most = data.draw(st.integers(3, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram_index, "BULK", data.draw(st.integers(1, 8)))
        patch.setattr(ngram_index, "MOST_AT_ONCE", most)
        drafter, length, indexed = make_ngram(5), 0, 0
        while length < len(tokens):
            length = data.draw(st.integers(length + 1, len(tokens)))
            drafts = guess(drafter, tokens[:length])
            indexed = drafter._indices["r"]._num_indexed
            assert drafts == (looked_up(tokens[:length], 5) if indexed == length - 1 else [])
        for _ in range(len(tokens)):
            drafts = guess(drafter, tokens)
        assert drafts == looked_up(tokens, 5)


def test_a_long_prompt_is_looked_up_where_it_was_said_last() -> None:
    dice = random.Random(3)
    tokens = [dice.randrange(3, 150_000) for _ in range(3 * ngram_index.MOST_AT_ONCE)]
    said = [1, 2, 7, 8, 9]
    for place in (10, ngram_index.MOST_AT_ONCE + 10):  # in the first part, and later in the second
        tokens[place : place + 5] = said
        said = [1, 2, *said[::-1][:3]]
    drafter = make_ngram(3)
    asked = [guess(drafter, [*tokens, 1, 2]) for _ in range(5)]
    assert asked[:3] == [[]] * 3 and asked[-1] == [9, 8, 7]
    part = drafter._indices["r"]
    assert len(part._parts) < 12


@pytest.mark.parametrize("most", [None, 0, 1, 3, 9])
def test_it_guesses_no_more_than_pays(most: int | None) -> None:
    request = Request(id="r", token_ids=[5, 6, 7] * 5, num_prompt_tokens=1, params=DecodeParams(), max_drafts=most)
    (drafts,) = make_ngram(4).propose([request])
    assert drafts == [5, 6, 7, 5][: 4 if most is None else most]


def looked_up(tokens: list[int], num_tokens: int) -> list[int]:
    for length in (3, 2):
        for end in range(len(tokens) - 1, length - 1, -1):
            if len(tokens) > length and tokens[end - length : end] == tokens[-length:]:
                return [tokens[end + shift % (len(tokens) - end)] for shift in range(num_tokens)]
    return []


# --- a small model ------------------------------------------------------------------------------


def make_world(drafter: Any, on_step: Any = None) -> World:
    return World.make(Setup(block_size=8, drafter=drafter, max_num_batched_tokens=256), on_step=on_step)


def model_drafter(num_tokens: int = 4, **runner_options: Any) -> Any:
    """A factory for a drafter with a toy model of its own; the drafters and runners made are its attributes."""
    options = {"num_blocks": 100, "block_size": 8, "max_num_batched_tokens": 64} | runner_options

    def make(runner: ToyRunner) -> ModelDrafter:
        def load() -> ToyRunner:
            make.runner = ToyRunner(**options)  # type: ignore[attr-defined]
            return make.runner  # type: ignore[attr-defined,no-any-return]

        make.drafter = ModelDrafter(  # type: ignore[attr-defined]
            DrafterContext(num_draft_tokens=num_tokens, info=runner.info, load_runner=load)
        )
        return make.drafter  # type: ignore[attr-defined,no-any-return]

    return make


def run_requests(drafter: Any, **options: Any) -> tuple[World, float]:
    """Six requests; returns the world and the share of drafts that were accepted."""
    seen: list[StepStats] = []
    world = make_world(drafter, seen.append)
    draw = random.Random(1)
    for index in range(6):
        prompt = [draw.randrange(97) for _ in range(5 + 7 * index)]
        world.add(make_request(str(index), prompt, max_tokens=30, ignore_eos=True, seed=index, **options))
    world.run()
    drafted = sum(stats.num_drafted for stats in seen)
    return world, sum(stats.num_accepted for stats in seen) / max(drafted, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 1.5},
        {"temperature": 1.0, "top_k": 8, "presence_penalty": 1.0, "repetition_penalty": 1.3},
    ],
    ids=["greedy", "sampled", "penalised"],
)
def test_the_same_model_is_always_right_for_it_draws_with_the_same_noise(options: dict[str, Any]) -> None:
    world, accepted = run_requests(model_drafter(), **options)
    assert accepted == 1.0
    assert world.runner.num_calls == 7, "the prompts, then 29 tokens in fives"


def test_it_stops_drafting_at_an_end() -> None:
    factory = model_drafter()
    drafter = factory(ToyRunner(num_blocks=8, block_size=8))
    request = make_request("r", [1, 2, 3], temperature=0.0)
    request.max_num_tokens = 50
    drafts = drafter.propose([request])[0]
    drafter.release("r")
    request.end_token_ids = frozenset({drafts[1]})
    assert drafter.propose([request]) == [drafts[: drafts.index(drafts[1]) + 1]]


def test_a_stranger_is_seldom_right_and_does_no_harm() -> None:
    plain, _ = run_requests(None, temperature=1.0)
    world, accepted = run_requests(model_drafter(weights_seed=1), temperature=1.0)
    assert accepted < 0.3
    assert {name: result.token_ids for name, result in world.results.items()} == {
        name: result.token_ids for name, result in plain.results.items()
    }


def test_each_token_is_computed_once_where_drafts_are_right() -> None:
    factory = model_drafter()
    world, _ = run_requests(factory, temperature=0.0)
    known = sum(len(request.token_ids) for request in world.requests.values())
    assert factory.runner.num_tokens <= known


@pytest.mark.parametrize("limits", [{"num_blocks": 4}, {"max_num_seqs": 2}, {"max_model_len": 20}, {"num_blocks": 1}])
def test_without_room_it_proposes_nothing_and_holds_nothing_up(limits: dict[str, int]) -> None:
    factory = model_drafter(**limits)
    _, accepted = run_requests(factory, temperature=0.8)
    assert accepted in (0.0, 1.0), "what it does propose is right"
    assert factory.drafter._kv.num_free_blocks == factory.drafter._kv.num_blocks
    assert len(factory.drafter._free_rows) == factory.runner.info.max_num_seqs


def test_shadows_go_with_their_requests() -> None:
    factory = model_drafter()
    world = make_world(factory)
    for name in "ab":
        world.add(make_request(name, [1, 2, 3], max_tokens=40, ignore_eos=True))
    world.step()
    world.step()
    assert len(factory.drafter._shadows) == 2
    world.engine.abort("a")
    assert list(factory.drafter._shadows) == ["b"]
    factory.drafter._kv.check(list(factory.drafter._shadows.values()))
    world.run()
    assert not factory.drafter._shadows


def test_idle_shadows_make_room_for_those_asked_for() -> None:
    """A preempted request's shadow is given up when another needs its place."""
    factory = model_drafter(max_num_seqs=1)
    drafter = factory(ToyRunner(num_blocks=8, block_size=8))
    first, second = make_request("first", [1, 2, 3]), make_request("second", [4, 5, 6])
    first.max_num_tokens = second.max_num_tokens = 50
    assert len(drafter.propose([first])[0]) == 4
    assert len(drafter.propose([second])[0]) == 4
    assert list(drafter._shadows) == ["second"]
    assert [len(drafts) for drafts in drafter.propose([first, second])] == [0, 4]


def test_no_forward_of_its_is_larger_than_the_draft_runner_grants() -> None:
    """The toy asserts it of every batch: six requests draft, two tokens fit a step."""
    _, accepted = run_requests(model_drafter(max_num_batched_tokens=2), temperature=0.0)
    assert accepted == 1.0


def test_a_request_that_outgrew_the_draft_model_leaves_its_place_to_others() -> None:
    factory = model_drafter(max_num_seqs=1, max_model_len=20)
    drafter = factory(ToyRunner(num_blocks=8, block_size=8))
    long, short = make_request("long", [1] * 18), make_request("short", [4, 5, 6])
    long.max_num_tokens = short.max_num_tokens = 50
    assert len(drafter.propose([long])[0]) == 2
    long.token_ids += [1] * 3
    assert [len(drafts) for drafts in drafter.propose([long, short])] == [0, 4]


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_blocks_of_the_draft_runner_are_shared_only_where_they_may_be(prefix_caching: bool) -> None:
    runner = ToyRunner(num_blocks=20, block_size=8)
    context = DrafterContext(num_draft_tokens=3, info=INFO, prefix_caching=prefix_caching, load_runner=lambda: runner)
    drafter = ModelDrafter(context)
    for name in "ab":
        request = make_request(name, list(range(20)))
        request.max_num_tokens = 50
        drafter.propose([request])
    shared = {*drafter._shadows["a"].block_ids} & {*drafter._shadows["b"].block_ids}
    assert len(shared) == (2 if prefix_caching else 0)


def test_another_vocabulary_is_refused() -> None:
    class Other(ToyRunner):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            fields = {name: getattr(self.info, name) for name in type(self.info).__slots__}
            self.info = type(self.info)(**fields | {"vocab_size": 96})

    runner = Other(num_blocks=4, block_size=8)
    with pytest.raises(ValueError, match="vocabulary has 96 tokens, the model's 97"):
        ModelDrafter(DrafterContext(num_draft_tokens=3, info=INFO, load_runner=lambda: runner))
    assert runner.closed


def test_it_needs_a_model_and_closes_it() -> None:
    with pytest.raises(ValueError, match="needs a draft model"):
        ModelDrafter(DrafterContext(num_draft_tokens=3, info=INFO))
    factory = model_drafter()
    world = make_world(factory)
    world.engine.close()
    assert factory.runner.closed and world.runner.closed
