"""What a request offers, and conversations with tools for templates that know of none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from isotoken.api.errors import ParameterError
from isotoken.api.tools.conversation import in_words, knows_tools
from isotoken.api.tools.formats import HERMES, MISTRAL
from isotoken.api.tools.offer import read_offer


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


TOOLS = [tool("add", parameters={"type": "object"}), tool("sub")]
NAMED = {"type": "function", "function": {"name": "sub"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}


@pytest.mark.parametrize(
    ("choice", "names", "required"),
    [
        (None, ["add", "sub"], False),
        ("auto", ["add", "sub"], False),
        ("required", ["add", "sub"], True),
        (NAMED, ["sub"], True),
        (ALLOWED, ["sub"], True),
    ],
)
def test_the_choice_says_what_may_or_must_be_called(choice: Any, names: list[str], required: bool) -> None:
    offer = read_offer(TOOLS, choice, parallel=True, form=HERMES)
    assert offer is not None
    assert (list(offer.tools), offer.is_required) == (names, required)
    assert offer.given == TOOLS


@pytest.mark.parametrize(("tools", "choice"), [([], None), ([], "none"), ([], "auto"), (TOOLS, "none")])
def test_nothing_is_offered(tools: list[Any], choice: Any) -> None:
    assert read_offer(tools, choice, parallel=True, form=HERMES) is None


@pytest.mark.parametrize(
    ("tools", "choice", "field"),
    [
        ([], "required", "tool_choice"),
        (TOOLS, "any", "tool_choice"),
        (TOOLS, {"type": "function", "function": {"name": "mul"}}, "tool_choice"),
        (TOOLS, {"type": "custom"}, "tool_choice"),
        (TOOLS, {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, "tool_choice"),
        ([{"type": "retrieval"}], None, "tools[0]"),
        ([tool("two words")], None, "tools[0].function.name"),
        ([tool("a"), tool("a")], None, "tools[1].function.name"),
        ([tool("a", parameters="none")], None, "tools[0].function.parameters"),
        ([tool(f"f{i}") for i in range(129)], None, "tools"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(tools: list[Any], choice: Any, field: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        read_offer(tools, choice, parallel=True, form=HERMES)
    assert refusal.value.field == field


def test_markers_that_are_tokens_are_tokens_in_the_grammar() -> None:
    offer = read_offer(TOOLS, "required", parallel=False, form=MISTRAL)
    assert offer is not None
    parts = offer.calls({"[TOOL_CALLS]": 5, "other": 6})["parts"]
    assert parts[0] == {"type": "token", "id": 5}
    assert parts[1] == {"type": "text", "text": "["}


def test_ids_are_what_the_family_takes() -> None:
    ids = [form.new_id() for form in (HERMES, MISTRAL) for _ in range(2)]
    assert len(set(ids)) == 4
    assert ids[0].startswith("call_") and len(ids[2]) == 9 and ids[2].isalnum()


def test_templates_without_tools_are_told_in_words() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "3", "tool_call_id": "c"},
        {"role": "tool", "content": "4", "tool_call_id": "c"},
        {"role": "user", "content": "thanks"},
    ]
    system, user, assistant, results, thanks = in_words(messages, TOOLS, HERMES)
    assert system["role"] == "system" and json.dumps(TOOLS[0]["function"]) in system["content"]
    assert user == messages[0] and thanks == messages[4]
    assert assistant == {"role": "assistant", "content": HERMES.write([("add", {"a": 1})] * 2)}
    assert results["role"] == "user" and results["content"].count("<tool_response>") == 2
    half = {"type": "function", "function": {"name": "add", "arguments": r'{"a": "\ud83d"}'}}
    (told,) = in_words([{"role": "assistant", "content": "", "tool_calls": [half]}], [], HERMES)
    assert told["content"].encode() == HERMES.write([("add", {"a": "\ud83d"})]).encode()  # halves cannot be tokenized
    with_system = in_words([{"role": "system", "content": "Be brief."}, *messages], TOOLS, HERMES)
    assert with_system[0]["content"].startswith("Be brief.\n\n") and len(with_system) == 5
    assert not knows_tools("{{ messages }}") and knows_tools("{% if tools %}")
