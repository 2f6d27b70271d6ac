"""Greedy tokens and what is reported with them: GRE in SPEC.md."""

from __future__ import annotations

import numpy as np
import pytest
from isotoken.conformance.cases import Case, goldens
from isotoken.conformance.lab import Lab
from isotoken.conformance.models import LLAMA, MODELS
from isotoken.conformance.oracle import log_softmax
from isotoken.conformance.service import Service, Setup, serve
from isotoken.conformance.spec import spec
from isotoken.core.types import FinishReason

GREEDY = [case for case in goldens("llama") if case.params.temperature == 0]


def named(name: str) -> Case:
    """One of the main model's goldens."""
    return next(case for case in goldens("llama") if case.name == name)


@spec("GRE-1")
@pytest.mark.parametrize("model", list(MODELS))
def test_goldens(lab: Lab, model: str) -> None:
    serve(lab, [case for case in goldens(model) if case.params.temperature == 0], model=model)


@spec("GRE-2")
def test_end_of_sequence(lab: Lab) -> None:
    case = named("greedy-stop")
    service = serve(lab, [case])
    if lab.target.exact:
        assert service.tokens[case.name][-1] == LLAMA.eos
        assert service.ended[case.name].finish_reason is FinishReason.STOP
        assert service.ended[case.name].stop_token_id == LLAMA.eos


@spec("GRE-2")
def test_ignore_eos_goes_on(lab: Lab) -> None:
    case = named("greedy-stop")
    longer = len(case.tokens or ()) + 5
    service = serve(lab, [case.but(ignore_eos=True, max_tokens=longer)])
    assert len(service.tokens[case.name]) == longer
    assert service.ended[case.name].finish_reason is FinishReason.LENGTH


@spec("GRE-2")
def test_stop_tokens(lab: Lab) -> None:
    case = named("greedy-short")
    tokens = list(case.tokens or ())
    stop = tokens[9]
    service = serve(lab, [case.but(stop_token_ids=frozenset({stop, LLAMA.vocab_size - 1}))])
    if lab.target.exact:
        assert service.tokens[case.name] == tokens[: tokens.index(stop) + 1]
        assert service.ended[case.name].stop_token_id == stop


@spec("GRE-2")
def test_min_tokens_holds_the_end_back(lab: Lab) -> None:
    case = named("greedy-stop")
    count = len(case.tokens or ()) + 4
    service = serve(lab, [case.but(min_tokens=count, max_tokens=count + 10)])
    assert len(service.tokens[case.name]) >= count


@spec("GRE-2")
def test_min_tokens_to_the_token(lab: Lab) -> None:
    """A stop token that is due after k tokens is let through with min_tokens = k, held back with k + 1."""
    case = named("greedy-short")
    tokens = list(case.tokens or ())
    places = [k for k in range(2, 20) if tokens.index(tokens[k]) == k]
    cases = [
        case.but(f"{k} {least}", stop_token_ids=frozenset({tokens[k]}), min_tokens=least)
        for k in places
        for least in (k, k + 1)
    ]
    service = serve(lab, cases)
    if lab.target.exact:
        assert all(service.tokens[f"{k} {k}"] == tokens[: k + 1] for k in places)
        assert all(len(service.tokens[f"{k} {k + 1}"]) > k + 1 for k in places)


@spec("GRE-2")
def test_max_model_len_ends_it(lab: Lab) -> None:
    limit = lab.runner().info.max_model_len
    prompt = tuple((3 + 7 * i) % 128 for i in range(limit - 3))
    case = named("greedy-one").but("to-the-end", prompt=prompt, max_tokens=50, ignore_eos=True)
    full = case.but("full", prompt=(*prompt, 9, 9))
    service = serve(lab, [case, full])
    assert len(service.tokens["to-the-end"]) == 3
    assert len(service.tokens["full"]) == 1
    assert service.ended["full"].finish_reason is FinishReason.LENGTH


@spec("GRE-3")
@pytest.mark.parametrize("count", [0, 5, -1])
def test_logprobs(lab: Lab, count: int) -> None:
    cases = [case.but(num_logprobs=count) for case in (named("greedy-short"), named("seeded-top-p"))]
    service = serve(lab, [*cases, named("greedy-long")])
    assert not service.logprobs["greedy-long"]
    for case in cases:
        tokens, found = service.tokens[case.name], service.logprobs[case.name]
        assert [entry.token_id for entry in found] == tokens
        trace = lab.trace("llama", (*case.prompt, *tokens))
        for index, entry in enumerate(found):
            row = len(case.prompt) + index - 1
            slack = 2 * lab.bound(trace, row)
            check_logprobs(entry.token_id, entry.logprob, entry.rank, entry.top, trace.logits[row], count, slack)


def check_logprobs(
    token: int, logprob: float, rank: int, top: list[tuple[int, float]], logits: np.ndarray, count: int, slack: float
) -> None:
    """Compare one position's report with a row of the oracle's logits [V] that may be `slack` off."""
    exact = log_softmax(logits)
    slack += 1e-5
    assert abs(logprob - exact[token]) <= slack
    sure = int((exact > exact[token] + 2 * slack).sum())
    likely = int((exact > exact[token] - 2 * slack).sum())
    assert 1 + sure <= rank <= max(likely, 1)
    assert len(top) == (len(logits) if count < 0 else count)
    assert len({i for i, _ in top}) == len(top)
    for place, (i, value) in enumerate(top):
        assert abs(value - exact[i]) <= slack
        assert place == 0 or value <= top[place - 1][1]
        assert exact[i] >= np.sort(exact)[-1 - place] - 2 * slack, "a better token was left out"


@spec("GRE-2")
def test_one_token(lab: Lab) -> None:
    service = Service(lab, Setup())
    service.serve([case.but(max_tokens=1) for case in GREEDY])
    assert all(len(tokens) == 1 for tokens in service.tokens.values())
