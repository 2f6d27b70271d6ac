"""The goldens are fresh, versioned and have ample margins."""

from __future__ import annotations

import pytest
from isotoken.conformance import SUITE_VERSION
from isotoken.conformance.cases import GOLDENS, finish_of, freeze_case, golden_file, goldens
from isotoken.conformance.freeze import AMPLE, freeze, generate
from isotoken.conformance.judge import bound_of, judge, oracle_of, trace_of
from isotoken.conformance.models import MODELS, weights_digest
from isotoken.conformance.targets import Precision

FLOAT32 = Precision("float32")


@pytest.mark.parametrize("model", list(MODELS))
def test_files_say_what_they_were_made_with(model: str) -> None:
    contents = golden_file(model)
    assert contents["suite_version"].split(".")[0] == SUITE_VERSION.split(".")[0], "a minor version keeps the goldens"
    assert contents["weights"] == weights_digest(MODELS[model])


def test_every_file_belongs_to_a_model() -> None:
    assert {path.stem for path in GOLDENS.glob("*")} == set(MODELS)


@pytest.mark.parametrize("model", list(MODELS))
def test_margins_are_ample(model: str) -> None:
    """At least ten times what float32 may get wrong, by the oracle of today."""
    for case in goldens(model):
        tokens = list(case.tokens or ())
        assert len(case.margins) == len(tokens)
        assert min(case.margins) >= AMPLE * 0.999
        trace = trace_of(model, (*case.prompt, *tokens))
        for index, margin in enumerate(case.margins):
            assert margin > 10 * 2 * bound_of(trace, len(case.prompt) + index - 1, FLOAT32)
        assert judge(case, tokens, model, FLOAT32).near_ties == 0
        assert finish_of(case, tokens, frozenset({MODELS[model].eos}), MODELS[model].max_len)


@pytest.mark.parametrize("model", list(MODELS))
def test_a_sample_regenerates(model: str) -> None:
    case = goldens(model)[-1]
    fresh = generate(oracle_of(model), case)
    assert fresh is not None
    assert fresh.tokens == case.tokens


def test_one_file_regenerates_whole() -> None:
    frozen = [freeze_case(case) for case in freeze(MODELS["gemma2"])]
    assert [freeze_case(case) for case in goldens("gemma2")] == frozen
