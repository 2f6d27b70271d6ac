"""Seeded draws and everything that changes them, through the engine: SEE in SPEC.md."""

from __future__ import annotations

import pytest
from isotoken.conformance.cases import Case, goldens
from isotoken.conformance.lab import Lab
from isotoken.conformance.models import MODELS
from isotoken.conformance.service import serve
from isotoken.conformance.spec import spec
from isotoken.core.types import DecodeParams

PROMPT = (17, 99, 3, 54, 120, 8, 77, 41, 5, 66, 102, 33)


@spec("SEE-1")
@pytest.mark.parametrize("model", list(MODELS))
def test_goldens(lab: Lab, model: str) -> None:
    serve(lab, [case for case in goldens(model) if case.params.temperature > 0], model=model)


def cases(**changes: object) -> list[Case]:
    """A greedy and a seeded request with the same other parameters."""
    return [
        Case(name=name, prompt=PROMPT, params=DecodeParams(max_tokens=24, temperature=temperature, seed=5, **changes))  # type: ignore[arg-type]
        for name, temperature in (("greedy", 0.0), ("seeded", 0.9))
    ]


@spec("SEE-4")
@pytest.mark.parametrize(
    "changes",
    [
        {"repetition_penalty": 1.5},
        {"repetition_penalty": 0.7},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 1.5},
        {"frequency_penalty": -1.0, "presence_penalty": 0.5},
        {"logit_bias": {7: 6.0, 8: -4.0, 130: 5.0}},
        {"allowed_token_ids": (1, 5, 31, 32, 64, 99, 128, 130)},
        {"bad_words_ids": ((4,), (5,), (5, 6), (99, 3))},
        {"min_tokens": 10, "stop_token_ids": frozenset(range(3, 90))},
        {"repetition_penalty": 1.3, "presence_penalty": 0.7, "frequency_penalty": 0.4, "logit_bias": {3: 3.0, 9: -2.0},
         "bad_words_ids": ((9,),), "top_k": 40, "top_p": 0.95},
    ],
    ids="+".join,
)  # fmt: skip
def test_parameters(lab: Lab, changes: dict[str, object]) -> None:
    service = serve(lab, cases(**changes))
    if lab.target.exact:
        plain = serve(lab, cases())
        assert service.tokens != plain.tokens, "this case does not show whether the parameter works"


@spec("SEE-4")
def test_bad_words_of_several_tokens(lab: Lab) -> None:
    plain = serve(lab, cases())
    words = [tuple(tokens[4:7]) for tokens in plain.tokens.values()] + [(*PROMPT[-2:], plain.tokens["greedy"][0])]
    service = serve(lab, cases(bad_words_ids=tuple(words)))
    for tokens in service.tokens.values():
        text = [*PROMPT, *tokens]
        assert not any(tuple(text[i : i + 3]) in words for i in range(len(PROMPT) - 2, len(text)))


@spec("SEE-1")
def test_other_seeds_other_tokens(lab: Lab) -> None:
    params = DecodeParams(max_tokens=12, temperature=1.5)
    many = [Case(name=f"s{i}", prompt=PROMPT, params=params).but(seed=i << (8 * (i % 8))) for i in range(16)]
    service = serve(lab, many)
    assert len({tuple(tokens) for tokens in service.tokens.values()}) >= 15
