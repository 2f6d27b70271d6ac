"""Drafters change speed, never tokens: SPE in SPEC.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from isotoken.conformance.cases import Case, goldens
from isotoken.conformance.drafters import garbage, replay
from isotoken.conformance.lab import Lab
from isotoken.conformance.models import LLAMA
from isotoken.conformance.service import serve
from isotoken.conformance.spec import requires, spec
from isotoken.conformance.test_greedy import named
from isotoken.core.draft_pace import DraftPolicy
from isotoken.core.interfaces import Drafter, RunnerInfo
from isotoken.core.types import DecodeParams, FinishReason
from isotoken.plugins.drafters import DrafterContext

pytestmark = requires("speculative")

ALL = goldens("llama")
PROMPT = (17, 99, 3, 54, 120, 8, 77, 41, 5, 66, 102, 33)
AS_PAYS = DraftPolicy(num_draft_tokens=5, verify_cost=0.1)
"""As many guesses as pay for each request, as every service has it."""

windowed = pytest.mark.parametrize("model", ["llama", "gemma2", "moe"])


def known(cases: Sequence[Case]) -> dict[str, Sequence[int]]:
    """What each request will say."""
    return {case.name: case.tokens or () for case in cases}


@spec("SPE-1")
@windowed
def test_garbage(lab: Lab, model: str) -> None:
    service = serve(lab, goldens(model), model=model, drafter=garbage())
    fewer = serve(lab, goldens(model), model=model, drafter=garbage(), draft_policy=AS_PAYS)
    assert fewer.num_drafted < service.num_drafted / 2, "guesses that are never right were made on and on"


@spec("SPE-2")
@windowed
def test_perfect(lab: Lab, model: str) -> None:
    cases = goldens(model)
    serve(lab, cases, model=model, drafter=replay(known(cases)))
    alone = [case for case in cases if case.name == "greedy-short"]
    plain = serve(lab, alone, model=model)
    service = serve(lab, alone, model=model, drafter=replay(known(alone)))
    if lab.target.exact:
        assert len(service.stats) < 0.4 * len(plain.stats), "perfect drafts saved few steps"


@spec("SPE-3")
@windowed
@pytest.mark.parametrize("budget", [0, 13])
def test_mostly_right(lab: Lab, model: str, budget: int) -> None:
    cases = goldens(model)
    drafter = replay(known(cases), count=5, right=0.75)
    serve(lab, cases, model=model, drafter=drafter, max_num_batched_tokens=budget, every=1)
    serve(lab, cases, model=model, drafter=drafter, draft_policy=AS_PAYS, max_num_batched_tokens=budget, every=1)


@spec("SPE-4")
@pytest.mark.parametrize("place", range(4, 12))
def test_stop_inside_an_accepted_run(lab: Lab, place: int) -> None:
    cases = []
    for case in (named("greedy-short"), named("seeded")):
        tokens = case.tokens or ()
        stop = tokens[place]
        cases.append(case.but(f"{case.name} stop", stop_token_ids=frozenset({stop})))
        cases.append(case.but(f"{case.name} length", max_tokens=place + 1))
    drafts = {c.name: named(c.name.rsplit(" ", 1)[0]).tokens or () for c in cases}
    service = serve(lab, cases, drafter=replay(drafts, count=6))
    if lab.target.exact:
        for case in cases:
            whole = list(drafts[case.name])
            due = whole[: whole.index(whole[place]) + 1] if case.params.stop_token_ids else whole[: place + 1]
            assert service.tokens[case.name] == due


@spec("SPE-4")
def test_end_of_sequence_inside_an_accepted_run(lab: Lab) -> None:
    cases = [named("greedy-stop"), named("seeded-stop")]
    drafts = {case.name: [*(case.tokens or ()), 9, 9, 9] for case in cases}
    for count in (2, 3, 4, 5, 6):
        service = serve(lab, cases, drafter=replay(drafts, count=count))
        if lab.target.exact:
            assert {o.finish_reason for o in service.ended.values()} == {FinishReason.STOP}
            assert {o.stop_token_id for o in service.ended.values()} == {LLAMA.eos}


@spec("SPE-5")
def test_prompt_look_up(lab: Lab) -> None:
    def ngram(info: RunnerInfo) -> Drafter:
        context = DrafterContext(num_draft_tokens=4, info=info, load_runner=None)
        drafter: Drafter = lab.plugins.drafters.get_factory("ngram")(context)
        return drafter

    spoken = [c.but(f"{c.name} spoken", prompt=(*c.prompt, *(c.tokens or ()), *c.prompt[-6:])) for c in ALL[:6]]
    serve(lab, [*ALL, *spoken], drafter=ngram)
    serve(lab, [*ALL, *spoken], drafter=ngram, draft_policy=AS_PAYS)


@spec("SPE-5")
@pytest.mark.parametrize("draft", ["llama", "draft"])
def test_draft_model(lab: Lab, draft: str) -> None:
    def model(info: RunnerInfo) -> Drafter:
        context = DrafterContext(
            num_draft_tokens=3,
            info=info,
            prefix_caching=bool(lab.can.prefix_caching),
            block_copies=bool(lab.can.block_copies),
            load_runner=lambda: lab.load(draft),
        )
        drafter: Drafter = lab.plugins.drafters.get_factory("model")(context)
        return drafter

    service = serve(lab, ALL, drafter=model)
    if draft == "llama" and lab.target.exact:
        assert service.num_accepted > 100, "the model drafts for itself and is seldom right"


@spec("SPE-6")
@pytest.mark.parametrize(
    "changes",
    [
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
        {"repetition_penalty": 1.4},
        {"bad_words_ids": ((4,), (99, 3), (5, 6)), "logit_bias": {5: 4.0, 6: 4.0}},
        {"min_tokens": 8, "stop_token_ids": frozenset(range(3, 60))},
    ],
    ids="+".join,
)
def test_parameters_see_accepted_drafts(lab: Lab, changes: dict[str, object]) -> None:
    cases = [
        Case(name=f"t{t}", prompt=PROMPT, params=DecodeParams(max_tokens=24, temperature=t, seed=5, **changes))  # type: ignore[arg-type]
        for t in (0.0, 0.9)
    ]
    plain = serve(lab, cases)
    service = serve(lab, cases, drafter=replay(plain.tokens, count=5))
    assert service.num_accepted > 0 or not lab.target.exact
    serve(lab, cases, drafter=replay(plain.tokens, count=5, right=0.7))


@spec("SPE-7")
def test_near_the_end_of_the_context(lab: Lab) -> None:
    limit = lab.runner().info.max_model_len
    prompt = tuple((3 + 7 * i) % 128 for i in range(limit - 9))
    case = named("greedy-one").but("end", prompt=prompt, max_tokens=50, ignore_eos=True)
    plain = serve(lab, [case])
    for count in (3, 7, 12):
        service = serve(lab, [case], drafter=replay(plain.tokens, count=count))
        assert len(service.tokens["end"]) == 9


@spec("SPE-7")
def test_drafts_give_way_when_blocks_run_out(lab: Lab) -> None:
    size = lab.runner().info.block_size
    cases = [replace(c, name=f"{c.name} {i}") for c in ALL if len(c.prompt) < 60 for i in range(2)]
    serve(lab, cases, drafter=replay(known(cases), count=6, right=0.8), num_blocks=-(-90 // size))
