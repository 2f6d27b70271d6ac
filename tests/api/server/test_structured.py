"""Structured outputs over HTTP: every client's words for them, on a model whose weights are random."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from .conftest import Served

pytest.importorskip("llguidance", reason="grammars need the extra: pip install 'isotoken[structured]'")

MESSAGES: Any = [{"role": "user", "content": "Tell me."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "color": {"enum": ["red", "blå"]},
        "n": {"type": "integer", "maximum": 9, "minimum": 0},
    },
    "required": ["ok", "color", "n"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "thing", "strict": True, "schema": SCHEMA}}


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def is_thing(text: str | None) -> bool:
    value = json.loads(text or "")
    return list(value) == ["ok", "color", "n"] and value["color"] in ("red", "blå") and 0 <= value["n"] <= 9


class Color(StrEnum):
    red = "red"
    blue = "blue"


class Thing(BaseModel):
    ok: bool
    color: Color


def test_a_strict_schema_holds_whatever_the_model_wants(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, response_format=FORMAT, n=4, temperature=1.5, seed=1, max_tokens=400
    )
    texts = [choice.message.content for choice in answer.choices]
    assert all(map(is_thing, texts)) and len(set(texts)) > 1
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}


def test_the_clients_own_models_are_parsed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="tiny", messages=MESSAGES, response_format=Thing, temperature=1.0, seed=3, max_tokens=400
    )
    assert isinstance(answer.choices[0].message.parsed, Thing)
    with client.chat.completions.stream(
        model="tiny", messages=MESSAGES, response_format=Thing, temperature=1.0, seed=3, max_tokens=400
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds and "content.done" in kinds
    assert final.choices[0].message.parsed == answer.choices[0].message.parsed


def test_a_stream_is_the_whole_answer(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "tiny",
        "messages": MESSAGES,
        "response_format": FORMAT,
        "temperature": 1.2,
        "max_tokens": 400,
    }
    whole = client.chat.completions.create(**asked, seed=8).choices[0].message.content
    pieces = [
        chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, seed=8, stream=True)
    ]
    assert "".join(pieces) == whole and len(pieces) > 5


def test_any_json_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, response_format={"type": "json_object"}, max_tokens=60, seed=2
    )
    text = answer.choices[0].message.content or ""
    assert text.startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


WORDS: list[tuple[dict[str, Any], Callable[[str], Any]]] = [
    ({"structured_outputs": {"json": SCHEMA}}, is_thing),
    (
        {"structured_outputs": {"json": json.dumps(SCHEMA), "disable_any_whitespace": True}},
        lambda text: is_thing(text) and not re.search(r"\s", text),
    ),
    ({"structured_outputs": {"regex": r"[a-f]{3}-\d{2}"}}, lambda text: re.fullmatch(r"[a-f]{3}-\d{2}", text)),
    ({"structured_outputs": {"choice": ["left", "right 🙂"]}}, lambda text: text in ("left", "right 🙂")),
    (
        {"structured_outputs": {"grammar": 'start: "<" ("x" | "y") ~ 2 ">"'}},
        lambda text: re.fullmatch("<[xy]{2}>", text),
    ),
    ({"guided_json": SCHEMA}, is_thing),
    ({"guided_regex": "(yes|no)!"}, lambda text: text in ("yes!", "no!")),
    ({"guided_choice": ["a", "b"]}, lambda text: text in ("a", "b")),
    ({"guided_grammar": 'root ::= "1" [0-9] "."'}, lambda text: re.fullmatch(r"1[0-9]\.", text)),
    ({"response_format": FORMAT}, is_thing),
]


@pytest.mark.parametrize(("asked", "good"), WORDS)
def test_other_words_for_it(server: Served, asked: dict[str, Any], good: Callable[[str], Any]) -> None:
    body = {"prompt": "The answer:", "max_tokens": 400, "temperature": 1.0, "seed": 5, **asked}
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    assert good(choice["text"]) and choice["finish_reason"] == "stop"
    chat = server.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 400, "seed": 5, **asked}).json()
    assert good(chat["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("grammar", "good"),
    [
        ({"type": "json", "value": SCHEMA}, is_thing),
        ({"type": "json_schema", "value": {"name": "thing", "schema": SCHEMA}}, is_thing),
        ({"type": "regex", "value": "[ab]{4}"}, lambda text: re.fullmatch("[ab]{4}", text)),
    ],
)
def test_the_words_of_text_generation_inference(server: Served, grammar: Any, good: Callable[[str], Any]) -> None:
    body = {
        "inputs": "Say:",
        "parameters": {"grammar": grammar, "max_new_tokens": 400, "details": True, "seed": 3, "temperature": 1.1},
    }
    answer = server.post("/generate", body).json()
    assert good(answer["generated_text"]) and answer["details"]["finish_reason"] == "eos_token"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": {"type": "thing"}},
                }
            },
            "response_format",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": {"$ref": "http://example.com/x"}},
                }
            },
            "response_format",
        ),
        ({"guided_regex": "("}, "guided_regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"regex": "a"}, "guided_json": {}}, "structured_outputs"),
    ],
)
def test_what_cannot_be_is_a_400_with_its_field(server: Served, asked: dict[str, Any], param: str) -> None:
    for path, body in (("/v1/chat/completions", {"messages": MESSAGES}), ("/v1/completions", {"prompt": "x"})):
        answer = server.post(path, {**body, **asked})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param


def test_a_schema_nested_beyond_reason_is_a_400(server: Served) -> None:
    deep = '{"items":' * 5000 + "{}" + "}" * 5000
    body = '{"prompt":"x","guided_json":' + deep + "}"
    answer = server.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text


def test_logprobs_spell_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, response_format=FORMAT, logprobs=True, top_logprobs=2, seed=1, max_tokens=400
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    spelt = b"".join(bytes(entry.bytes or ()) for entry in choice.logprobs.content)
    assert spelt.decode().removesuffix("<|end|>") == choice.message.content


def test_a_server_without_grammars_names_what_is_missing(serve_tiny: Callable[..., Served]) -> None:
    server = serve_tiny(config={"grammars": "none"})
    answer = server.post("/v1/completions", {"prompt": "x", "guided_choice": ["a"]})
    assert answer.status_code == 400
    assert "grammars=none" in answer.json()["error"]["message"]
    assert server.post("/v1/completions", {"prompt": "x"}).status_code == 200


def test_a_crash_of_the_engine_costs_no_constraint(server: Served, serve_tiny: Callable[..., Served]) -> None:
    """The engine is killed in the middle of a stream, which goes on to the same answer."""
    import os
    import signal

    schema = {"type": "array", "items": {"enum": ["aa", "bb", "cc"]}, "minItems": 24, "maxItems": 24}
    body = {"prompt": "x", "guided_json": schema, "max_tokens": 1200, "temperature": 1.0, "seed": 4}
    calm = server.post("/v1/completions", body).json()["choices"][0]
    mortal = serve_tiny()
    pieces: list[str] = []
    with mortal.client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                pieces.append(json.loads(line[6:])["choices"][0]["text"])
            if len(pieces) == 12:
                os.kill(mortal.engine_pid, signal.SIGKILL)
                pieces.append("")
    assert "".join(pieces) == calm["text"]
    assert len(json.loads(calm["text"])) == 24
