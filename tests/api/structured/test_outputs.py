"""What users may ask an output to be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from isotoken.api.errors import ParameterError
from isotoken.api.sampling_params import SamplingParams
from isotoken.api.structured.outputs import MAX_BYTES, StructuredOutputs


def grammar(**fields: Any) -> Any:
    return json.loads(StructuredOutputs(**fields).text)


def test_each_kind_is_a_grammar() -> None:
    assert grammar(json={"type": "integer"}) == {"type": "json", "schema": {"type": "integer"}}
    assert grammar(json='{"b": 1, "a": 2}')["schema"] == {"b": 1, "a": 2}
    assert grammar(json_object=True) == {"type": "json", "schema": {"type": "object"}}
    assert grammar(regex="a+") == {"type": "regex", "pattern": "a+"}
    assert grammar(choice=["a", "é"]) == {"type": "choice", "choices": ["a", "é"]}
    assert grammar(grammar="start: x") == {"type": "grammar", "text": "start: x"}
    assert grammar(json=True, disable_any_whitespace=True)["whitespace"] is False


def test_the_order_of_a_schemas_members_is_kept() -> None:
    """It is the order in which the answer has them."""
    assert StructuredOutputs(json={"b": {}, "a": {}}).text == '{"type":"json","schema":{"b":{},"a":{}}}'


@pytest.mark.parametrize("value", [None, {}, {"regex": None}])
def test_nothing_asked_for_is_nothing(value: Any) -> None:
    assert StructuredOutputs.of(value) is None
    assert SamplingParams(structured_outputs=value).grammar is None


@pytest.mark.parametrize(
    "fields",
    [
        {"regex": "a", "choice": ["b"]},
        {"json_object": False},
        {"choice": []},
        {"choice": [""]},
        {"choice": "abc"},
        {"choice": ["a"] * 10_001},
        {"regex": 5},
        {"grammar": ["a"]},
        {"json": "{"},
        {"json": "5"},
        {"json": 5},
        {"json": r'{"enum": ["\ud83d"]}'},
        {"unknown": 1},
        {"parts": {}},
        {"regex": "x" * MAX_BYTES},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ParameterError) as refusal:
        StructuredOutputs.of(fields)
    assert refusal.value.field.startswith("structured_outputs")


def test_a_schema_nested_beyond_reason_is_refused() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"items": deep}
    with pytest.raises(ParameterError):
        StructuredOutputs(json=deep)


def test_parameters_carry_the_grammar_to_every_choice() -> None:
    params = SamplingParams(n=3, structured_outputs={"regex": "a+"})
    resolved = params.resolve(vocab_size=9, max_tokens=5, encode=lambda text: [1])
    assert [each.grammar for each in resolved] == ['{"type":"regex","pattern":"a+"}'] * 3
    assert params.replace(n=1).grammar == params.grammar
