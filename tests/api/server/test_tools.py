"""Tools over HTTP: calls are forced, read and streamed in OpenAI's shape, on a model whose weights are random."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from isotoken.api.server.openai_answers import ChatChunk, ChatResponse

from .conftest import Served

pytest.importorskip("llguidance", reason="grammars need the extra: pip install 'isotoken[structured]'")

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Zürich"]}, "days": {"enum": [1, 2, 3]}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "now"}}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
ASKED: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Will it rain?"}],
    "tools": [WEATHER, TIME],
    "temperature": 1.0,
    "max_tokens": 300,
}


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def is_good(name: str, arguments: str) -> bool:
    value = json.loads(arguments)
    if name == "now":
        return bool(value == {})
    return name == "get_weather" and value["city"] in ("Paris", "Zürich") and value["days"] in (1, 2, 3)


def test_an_echo_stands_before_calls_and_content_alike(client: openai.OpenAI) -> None:
    for choice in ("required", "auto"):
        asked = {**ASKED, "tool_choice": choice, "seed": 3, "max_tokens": 60, "extra_body": {"echo": True}}
        (whole,) = client.chat.completions.create(**asked).choices
        assert (whole.message.content or "").startswith("Will it rain?")
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
        assert "".join(chunk.delta.content or "" for chunk in chunks) == whole.message.content


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_that_is_required_is_made(client: openai.OpenAI, choice: Any) -> None:
    asked = {**ASKED, "tool_choice": choice, "parallel_tool_calls": False, "n": 8, "seed": 3, "temperature": 3.0}
    answer = client.chat.completions.create(**asked)
    names = set()
    for each in answer.choices:
        assert each.finish_reason == "tool_calls" and each.message.content is None
        (call,) = each.message.tool_calls or ()
        assert call.type == "function" and call.id.startswith("call_")
        assert is_good(call.function.name, call.function.arguments)
        names.add(call.function.name)
    assert names == ({"get_weather"} if choice == NAMED else {"get_weather", "now"})


def stream(client: openai.OpenAI, **asked: Any) -> tuple[str, list[dict[str, Any]], str | None]:
    """Put a stream together as clients do, and hold each chunk against the shape."""
    content, calls, reason = "", [], None
    for chunk in client.chat.completions.create(**{**ASKED, **asked}, stream=True):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for part in delta.tool_calls or ():
            if part.id is not None:
                assert part.index == len(calls) and part.type == "function"
                assert part.function is not None and part.function.arguments == ""
                calls.append({"id": part.id, "name": part.function.name, "arguments": ""})
            else:
                assert part.function is not None and part.function.name is None and part.function.arguments
                calls[part.index]["arguments"] += part.function.arguments
        reason = chunk.choices[0].finish_reason or reason
    return content, calls, reason


def test_streamed_calls_are_those_of_the_whole_answer(client: openai.OpenAI) -> None:
    asked = {"tool_choice": "required", "parallel_tool_calls": False, "seed": 11}
    content, calls, reason = stream(client, **asked)
    (call,) = client.chat.completions.create(**{**ASKED, **asked}).choices[0].message.tool_calls or ()
    assert (content, reason) == ("", "tool_calls")
    assert [(each["name"], each["arguments"]) for each in calls] == [(call.function.name, call.function.arguments)]


def test_several_calls(server: Served, client: openai.OpenAI) -> None:
    """A bias towards the token that a further call begins with, so that there are several."""
    body = {"prompt": "\n<tool_call>", "add_special_tokens": False}
    tokens = server.post("/tokenize", body).json()["tokens"]
    for seed in range(8):
        asked = {"tool_choice": "required", "seed": seed, "logit_bias": {str(tokens[0]): 100}, "max_tokens": 150}
        _, calls, reason = stream(client, **asked)
        if len(calls) > 1:
            break
    assert len(calls) > 1 and len({call["id"] for call in calls}) == len(calls)
    whole = calls if reason == "tool_calls" else calls[:-1]
    assert all(is_good(call["name"], call["arguments"]) for call in whole)


def test_the_shape_of_answers_and_chunks(server: Served) -> None:
    asked = {**ASKED, "tool_choice": NAMED, "seed": 5, "logprobs": True, "return_token_ids": True}
    whole = server.post("/v1/chat/completions", asked).json()
    ChatResponse.model_validate(whole)
    events = server.events("/v1/chat/completions", {**asked, "stream": True})
    chunks = [ChatChunk.model_validate(event) for event in events[:-1]]
    assert events[-1] == "[DONE]"
    assert [chunk.choices[0].delta.role for chunk in chunks].count("assistant") == 1
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    ids = [token for chunk in chunks for token in chunk.choices[0].token_ids or ()]
    assert ids == whole["choices"][0]["token_ids"]
    entries = [e for chunk in chunks if chunk.choices[0].logprobs for e in chunk.choices[0].logprobs.content]
    assert len(entries) == len(whole["choices"][0]["logprobs"]["content"]) == len(ids)


@pytest.mark.parametrize("asked", [{"tool_choice": "none"}, {"tools": [], "tool_choice": "auto"}, {}])
def test_answers_without_calls_are_content(client: openai.OpenAI, asked: dict[str, Any]) -> None:
    answer = client.chat.completions.create(**{**ASKED, **asked, "max_tokens": 12, "seed": 1}).choices[0]
    assert answer.message.tool_calls is None and answer.message.content
    content, calls, reason = stream(client, **{**asked, "max_tokens": 12, "seed": 1})
    assert (content, calls, reason) == (answer.message.content, [], answer.finish_reason)


def test_tools_beside_a_form_of_the_content(client: openai.OpenAI) -> None:
    """The answer is either of the two."""
    kinds = set()
    for seed in range(8):
        answer = client.chat.completions.create(
            **{**ASKED, "seed": seed, "temperature": 9.0},
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [1, 2]}}},
        ).choices[0]
        if answer.message.tool_calls:
            assert all(is_good(call.function.name, call.function.arguments) for call in answer.message.tool_calls)
        else:
            assert answer.message.content in ("1", "2")
        kinds.add(bool(answer.message.tool_calls))
    assert kinds == {False, True}


def test_a_conversation_with_calls_and_results_goes_on(server: Served) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages = [
        *ASKED["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    body = {**ASKED, "messages": messages, "max_tokens": 4}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    plain = server.post("/v1/chat/completions", {**ASKED, "max_tokens": 4, "tool_choice": "none"}).json()
    assert answer.json()["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 40


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tool_choice": "must"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "fly"}}}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": "none"}, "tools"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "a", "strict": True, "parameters": {"type": "x"}}}],
                "tool_choice": "required",
            },
            "tools",
        ),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, "structured_outputs"),
    ],
)
def test_what_makes_no_sense_is_a_400_with_its_field(server: Served, asked: dict[str, Any], param: str) -> None:
    answer = server.post("/v1/chat/completions", {**ASKED, **asked})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_the_format_can_be_set(serve_tiny: Callable[..., Served]) -> None:
    server = serve_tiny(structured={"tool_call_parser": "mistral"})
    answer = server.post("/v1/chat/completions", {**ASKED, "tool_choice": NAMED, "seed": 2}).json()
    (call, *_) = answer["choices"][0]["message"]["tool_calls"]
    assert len(call["id"]) == 9 and is_good(call["function"]["name"], call["function"]["arguments"])


def test_markers_that_are_special_tokens(tiny_model: Path, tmp_path: Path, serve_tiny: Callable[..., Served]) -> None:
    """A model of Mistral's kind: the marker is a token that no text spells, and texts do not show."""
    folder = tmp_path / "mistral"
    shutil.copytree(tiny_model, folder)
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer.replace("<|system|>", "[TOOL_CALLS]"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] += "{% if tools %}{{ tools | tojson }}{% endif %}{# calls begin with [TOOL_CALLS] #}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    marker = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["[TOOL_CALLS]"]
    server = serve_tiny(config={"model": str(folder)})
    asked = {**ASKED, "model": "mistral", "tool_choice": NAMED, "seed": 2, "return_token_ids": True}
    choice = server.post("/v1/chat/completions", asked).json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["message"]["content"] is None and choice["token_ids"][0] == marker
    assert len(call["id"]) == 9 and is_good(call["function"]["name"], call["function"]["arguments"])
    free = {**asked, "tool_choice": "auto", "logit_bias": {str(marker): 100}, "max_tokens": 3}
    content = server.post("/v1/chat/completions", free).json()["choices"][0]["message"]["content"]
    assert content.startswith("[TOOL_CALLS]"), "what is no call is content, markup included"
    hidden = server.post("/v1/chat/completions", {**free, "tool_choice": "none"}).json()["choices"][0]["message"]
    assert "[TOOL_CALLS]" not in hidden["content"]
