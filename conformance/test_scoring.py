"""Scoring prompts: SCO in SPEC.md."""

from __future__ import annotations

import pytest
from isotoken.conformance.cases import Case, goldens
from isotoken.conformance.lab import Lab
from isotoken.conformance.service import Service, serve
from isotoken.conformance.spec import requires, spec
from isotoken.conformance.test_greedy import check_logprobs, named
from isotoken.core.types import FinishReason

pytestmark = requires("prompt_logprobs")


def check_scores(lab: Lab, service: Service, case: Case) -> None:
    """Compare a request's prompt_logprobs with the oracle."""
    found = service.prompt_logprobs[case.name]
    assert [entry.token_id for entry in found] == list(case.prompt[1:])
    trace = lab.trace("llama", case.prompt)
    for row, entry in enumerate(found):
        slack = 2 * lab.bound(trace, row)
        count = case.params.num_prompt_logprobs or 0
        check_logprobs(entry.token_id, entry.logprob, entry.rank, entry.top, trace.logits[row], count, slack)


@spec("SCO-1")
@pytest.mark.parametrize("count", [0, 3, -1])
def test_prompt_logprobs(lab: Lab, count: int) -> None:
    cases = [named(name).but(num_prompt_logprobs=count) for name in ("greedy-long", "seeded", "greedy-one")]
    service = serve(lab, [*cases, named("greedy-short")])
    for case in cases:
        check_scores(lab, service, case)
    assert not service.prompt_logprobs["greedy-short"]


@spec("SCO-2")
def test_max_tokens_zero(lab: Lab) -> None:
    scored = named("greedy-block").but("scored", max_tokens=0, num_prompt_logprobs=1)
    silent = named("greedy-block").but("silent", max_tokens=0)
    one = named("greedy-one").but("one token", max_tokens=0, num_prompt_logprobs=0)
    service = serve(lab, [scored, silent, one, named("seeded")])
    check_scores(lab, service, scored)
    for name in ("scored", "silent", "one token"):
        assert service.tokens[name] == []
        assert service.ended[name].finish_reason is FinishReason.LENGTH
    assert service.prompt_logprobs["one token"] == []


@spec("SCO-3")
@pytest.mark.parametrize(
    "setup",
    [
        {"max_num_batched_tokens": 9},
        {"max_num_logits": 8},
        {"max_num_logits": 11, "max_num_batched_tokens": 30},
        {"scheduler": "naive"},
        {"every": 2},
    ],
    ids=str,
)
def test_scores_do_not_depend_on_the_schedule(lab: Lab, setup: dict[str, int]) -> None:
    names = ("greedy-block", "seeded", "greedy-prefix", "seeded-filtered")
    cases = [named(name).but(num_prompt_logprobs=2) for name in names]
    service = serve(lab, [*cases, *(c for c in goldens("llama") if c.name not in names)], **setup)
    for case in cases:
        check_scores(lab, service, case)


@spec("SCO-3")
def test_a_warm_cache_is_passed_by(lab: Lab) -> None:
    warm = named("greedy-long")
    scored = warm.but("scored", num_prompt_logprobs=0)
    service = serve(lab, [warm])
    service.serve([scored])
    check_scores(lab, service, scored)


@spec("SCO-3")
def test_preempted_while_scored(lab: Lab) -> None:
    size = lab.runner().info.block_size
    base = named("greedy-block").but(num_prompt_logprobs=0, max_tokens=30, ignore_eos=True)
    cases = [base.but(f"scored {i}", prompt=(3 + i, *base.prompt[1:])) for i in range(4)]
    service = serve(lab, cases, num_blocks=-(-62 // size) + 3, max_num_batched_tokens=24)
    assert service.num_preemptions > 0 or size > 16
    for case in cases:
        check_scores(lab, service, case)
