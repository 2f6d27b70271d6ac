"""Grammars in the engine: the same tokens in every setup, legal ones only; what goes wrong stays with its request."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from isotoken.core import compilations, metered
from isotoken.core.constraints import fill_rows, num_fitting
from isotoken.core.draft_pace import DraftPolicy
from isotoken.core.types import FinishReason, Request

from .automaton import Walk, WalkCompiler, walk
from .drafters import GarbageDrafter, KnowingDrafter
from .toy import VOCAB_SIZE
from .world import ALONE, EOS, Gold, Result, Setup, World, compare, make_request

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
FEATURES: list[dict[str, Any]] = [
    {},
    {"ends": [0, 1, 2, 3, 4, 5, 6]},
    {"ends": [2], "ignore_eos": True},
    {"ends": [0, 1, 2, 3], "min_tokens": 9},
    {"last": 7},
    {"ends": [1], "last": 11, "temperature": 0.0},
    {"ends": [3], "allowed_token_ids": tuple(range(0, 97, 2))},
    {"ends": [3], "bad_words_ids": ((7,), (20, 21), *((a, b) for a in range(40) for b in range(0, 97, 5)))},
    {"ends": [4], "num_logprobs": 3, "num_prompt_logprobs": 2},
    {"ends": [5], "repetition_penalty": 1.3, "frequency_penalty": 0.5},
    {"ends": [1, 2], "stop_token_ids": frozenset(range(1, 97, 7))},
    {"ends": [2], "top_k": 5, "top_p": 0.8, "logit_bias": {5: 4.0, 12: -100.0}},
]


def workload() -> dict[str, tuple[list[int], dict[str, Any]]]:
    """Every feature with a grammar of its own, and as many requests without one."""
    found: dict[str, tuple[list[int], dict[str, Any]]] = {}
    for index, feature in enumerate(FEATURES):
        fields = {name: feature[name] for name in ("ends", "last") if name in feature}
        options = {name: value for name, value in feature.items() if name not in fields}
        grammar = walk(5 + index % 4, **fields)
        common = {"max_tokens": 24, "temperature": 0.8, "seed": 50 + index}
        prompt = [*PROMPT * (1 + index % 3), index]
        found[f"with{index}"] = prompt, {**common, **options, "grammar": grammar}
        found[f"without{index}"] = prompt, {**common, **options}
    return found


WORKLOAD = workload()


def run(setup: Setup, names: Any = WORKLOAD, *, outputs: dict[str, list[int]] | None = None) -> World:
    world = World.make(setup, grammars=WalkCompiler())
    for name in names:
        prompt, options = WORKLOAD[name]
        world.add(make_request(name, prompt, output=(outputs or {}).get(name, ()), **options))
    world.run()
    return world


@pytest.fixture(scope="module")
def gold() -> Gold:
    return run(ALONE).results


def test_what_comes_follows_the_grammar_and_ends_where_it_may(gold: Gold) -> None:
    reasons = set()
    for name, (_, options) in WORKLOAD.items():
        if "grammar" not in options:
            continue
        result = gold[name]
        state = WalkCompiler().compile(options["grammar"])()
        ended = result.stop_token_id is not None
        tokens = result.token_ids[:-1] if ended else result.token_ids
        assert state.advance(tokens) == len(tokens), name
        if result.stop_token_id == EOS:
            assert state.may_end and len(tokens) >= options.get("min_tokens", 0)
        elif result.finish_reason is FinishReason.STOP and not ended:
            assert state.is_finished
        if options.get("ignore_eos"):
            assert EOS not in tokens
        reasons.add((result.finish_reason, result.stop_token_id == EOS, state.is_finished))
    assert reasons >= {
        (FinishReason.STOP, True, False),
        (FinishReason.STOP, False, True),
        (FinishReason.LENGTH, False, False),
    }


def test_logprobs_are_of_the_raw_logits(gold: Gold) -> None:
    """Drawn tokens are not always the likeliest of the raw logits, and are reported with the rank they have there."""
    assert max(entry.rank for entry in gold["with8"].logprobs) > 3
    first = gold["with8"].logprobs[0]
    assert first.top == gold["without8"].logprobs[0].top


def test_requests_without_grammars_are_as_if_alone(gold: Gold) -> None:
    names = [name for name in WORKLOAD if "grammar" not in WORKLOAD[name][1]]
    alone = run(ALONE, names).results
    for name in names:
        compare(name, gold[name], alone[name])


def knowing(gold: Gold, p: float) -> Any:
    outputs = {name: result.token_ids for name, result in gold.items()}
    return lambda _: KnowingDrafter(5, outputs, p)


@pytest.mark.parametrize(
    "setup",
    [
        Setup(),
        Setup(asynchronous=True, block_size=4),
        Setup(max_num_batched_tokens=9, block_size=8),
        Setup(num_blocks=18, block_size=4, max_num_seqs=6),
        Setup(max_num_logits=9, prefix_caching=False),
    ],
)
@pytest.mark.parametrize("drafts", ["none", "garbage", "perfect", "mostly right", "paced"])
def test_the_same_tokens_in_every_setup(gold: Gold, setup: Setup, drafts: str) -> None:
    drafters: dict[str, Any] = {
        "none": {},
        "garbage": {"drafter": lambda _: GarbageDrafter(4)},
        "perfect": {"drafter": knowing(gold, 1.0)},
        "mostly right": {"drafter": knowing(gold, 0.7)},
        "paced": {
            "drafter": knowing(gold, 0.6),
            "draft_policy": DraftPolicy(num_draft_tokens=5, verify_cost=0.05),
        },
    }
    fields = {name: getattr(setup, name) for name in setup.__dataclass_fields__}
    world = run(Setup(**{**fields, **drafters[drafts]}))
    for name, want in gold.items():
        compare(name, world.results[name], want)
    if setup.num_blocks == 18:
        assert world.scheduler.num_preemptions > 3
    if drafts == "perfect" and setup.num_blocks == 400 and not setup.max_num_logits:
        assert world.runner.num_calls < run(setup).runner.num_calls


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_a_replayed_request_goes_on_as_it_would_have(gold: Gold, kept: int) -> None:
    """Its constraint is where its output is: built again from the tokens that it came with."""
    outputs = {name: gold[name].token_ids[:kept] for name in gold if len(gold[name].token_ids) > kept}
    world = run(Setup(drafter=knowing(gold, 0.8)), outputs, outputs=outputs)
    for name in outputs:
        got, want = world.results[name], gold[name]
        assert got.token_ids == want.token_ids[kept:], name
        assert got.finish_reason == want.finish_reason


def only(options: dict[str, Any], setup: Setup | None = None) -> Result:
    world = World.make(setup or Setup(), grammars=WalkCompiler())
    world.add(make_request("a", PROMPT, **{"max_tokens": 30, "temperature": 0.9, "seed": 4, **options}))
    return world.run()["a"]


def test_a_grammar_that_can_only_end_ends_the_request() -> None:
    result = only({"grammar": walk(6, last=4)})
    assert (len(result.token_ids), result.finish_reason, result.stop_token_id) == (4, FinishReason.STOP, None)


def test_it_ends_there_whatever_min_tokens_and_ignore_eos_say() -> None:
    result = only({"grammar": walk(6, last=4), "min_tokens": 20, "ignore_eos": True})
    assert (len(result.token_ids), result.finish_reason) == (4, FinishReason.STOP)


def test_an_answer_that_may_end_ends_where_nothing_else_is_left() -> None:
    """The only allowed token is one that the grammar lets come a few times: then there is none, but it may end."""
    result = only({"grammar": walk(50, ends=[*range(2, 50)]), "allowed_token_ids": (1,), "min_tokens": 25})
    assert result.finish_reason is FinishReason.STOP
    assert result.token_ids == [1, 1] and result.error is None


def test_where_nothing_is_left_to_draw_the_request_fails_with_the_reason() -> None:
    result = only({"grammar": walk(50), "allowed_token_ids": (7,)})
    assert (result.token_ids, result.finish_reason) == ([], FinishReason.ERROR)
    assert result.error is not None and "grammar" in result.error and "allowed_token_ids" in result.error


@pytest.mark.parametrize("drafts", [False, True])
def test_a_limit_that_is_met_fails_its_request_alone(gold: Gold, drafts: bool) -> None:
    names = [name for name in WORKLOAD if name.startswith("with")][:6]
    drafter = (
        (lambda _: KnowingDrafter(4, {"a": [1] * 30, **{n: gold[n].token_ids for n in names}})) if drafts else None
    )
    world = World.make(Setup(drafter=drafter), grammars=WalkCompiler())
    world.add(make_request("a", PROMPT, max_tokens=30, seed=4, grammar=walk(2, limit=5)))
    for name in names:
        prompt, options = WORKLOAD[name]
        world.add(make_request(name, prompt, **options))
    results = world.run()
    assert results["a"].finish_reason is FinishReason.ERROR
    assert results["a"].error is not None and "more than 5 tokens are too much" in results["a"].error
    assert len(results["a"].token_ids) == 5 or drafts
    for name in names:
        compare(name, results[name], gold[name])


# --- compiling ------------------------------------------------------------------------------------


def test_steps_go_on_while_a_grammar_is_compiled() -> None:
    gate = threading.Event()
    world = World.make(Setup(), grammars=WalkCompiler(gate))
    world.add(make_request("slow", PROMPT, max_tokens=5, grammar=walk(4)))
    world.add(make_request("plain", PROMPT, max_tokens=8))
    for _ in range(12):
        world.step()
    assert world.results["plain"].finish_reason is not None
    assert world.engine.has_work and "slow" not in world.results
    gate.set()
    assert world.run()["slow"].finish_reason is FinishReason.LENGTH


def test_a_request_can_leave_while_its_grammar_is_compiled() -> None:
    gate = threading.Event()
    world = World.make(Setup(), grammars=WalkCompiler(gate))
    world.engine.add(make_request("slow", PROMPT, grammar=walk(4)))
    with pytest.raises(ValueError, match="already here"):
        world.engine.add(make_request("slow", PROMPT, grammar=walk(4)))
    assert world.engine.abort("slow") and not world.engine.abort("slow")
    assert not world.engine.has_work
    gate.set()


def test_what_cannot_be_compiled_or_scheduled_is_told_with_its_reason() -> None:
    world = World.make(Setup(), grammars=WalkCompiler())
    world.add(make_request("bad", PROMPT, grammar="{"))
    world.add(make_request("bug", PROMPT, grammar='{"crash": 1}'))
    world.add(make_request("long", PROMPT * 100, grammar=walk(4)))
    world.add(make_request("off", PROMPT, output=[3, 3], grammar=walk(50)))
    for request in world.requests.values():
        request.finish_reason = FinishReason.ERROR  # none of them ever holds a block
    results = world.run()
    assert {name: result.finish_reason for name, result in results.items()} == dict.fromkeys(
        ("bad", "bug", "long", "off"), FinishReason.ERROR
    )
    errors = [str(results[name].error) for name in ("bug", "long", "off")]
    assert "a bug in the library" in errors[0] and "do not fit" in errors[1] and "does not follow" in errors[2]


def test_an_engine_without_a_compiler_refuses_grammars() -> None:
    world = World.make(Setup(), grammars=None)
    with pytest.raises(ValueError, match="grammar"):
        world.engine.add(make_request("a", PROMPT, grammar=walk(4)))


def test_a_grammar_is_compiled_once_while_it_is_among_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilations, "NUM_KEPT", 2)
    compiler = WalkCompiler()
    world = World.make(Setup(), grammars=compiler)
    for index, period in enumerate([4, 4, 5, 4, 6, 5]):
        world.add(make_request(f"r{index}", PROMPT, max_tokens=2, grammar=walk(period)))
        world.run()
    assert compiler.compiled == [walk(4), walk(5), walk(6), walk(5)]


# --- the parts ------------------------------------------------------------------------------------


def request_with(constraint: Walk) -> Request:
    request = make_request("a", PROMPT)
    request.constraint = constraint
    return request


def test_masks_of_a_verification_are_those_after_each_draft() -> None:
    constraint = Walk(5)
    drafts = [0, 1, 1, 2, 3, 9, 0]
    num_rows = len(drafts) + 1
    masks = np.zeros((num_rows, 4), np.uint32)
    fill_rows(constraint, drafts, masks, 0)
    assert constraint.taken == []
    legal = num_fitting(request_with(constraint), drafts)
    assert 0 < legal < len(drafts)
    for row in range(num_rows):
        expected = np.zeros(4, np.uint32)
        if row <= legal:
            after = Walk(5)
            assert after.advance(drafts[:row]) == row
            after.fill_mask(expected)
        assert masks[row].tolist() == expected.tolist()  # behind a draft that is off the grammar nothing is written
    some = np.zeros((2, 4), np.uint32)
    fill_rows(constraint, drafts, some, 1)
    assert some.tolist() == masks[1:3].tolist()


def test_every_mask_bit_is_a_token_of_the_vocabulary() -> None:
    mask = np.zeros(4, np.uint32)
    Walk(5, range(5)).fill_mask(mask)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    assert bits[VOCAB_SIZE:].sum() == 0


def test_a_grammar_that_takes_the_engines_time_fails_its_request_alone(
    gold: Gold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metered, "SPARE_S", 0.05)
    world = World.make(Setup(), grammars=WalkCompiler())
    world.add(make_request("a", PROMPT, max_tokens=30, seed=4, grammar=walk(7, burns_s=0.02)))
    names = ["with0", "with3", "without2"]
    for name in names:
        prompt, options = WORKLOAD[name]
        world.add(make_request(name, prompt, **options))
    results = world.run()
    assert results["a"].finish_reason is FinishReason.ERROR and len(results["a"].token_ids) < 8
    assert "for each token" in str(results["a"].error)
    for name in names:
        compare(name, results[name], gold[name])
