"""Through a real server, on every route: what a filter withdraws has not left before, whole or streamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from isotoken.api.safety.filters import FilterContext
from isotoken.api.safety.pii import pii
from isotoken.api.server.openai_schemas import ChatRequest

from ..server.conftest import Served
from ..server.test_fuzz import VALUES, bodies
from .conftest import Serve, cut, say, write_model
from .texts import ITEMS, WORDS, whole

TEXTS = (
    "Write to john.doe@example.com, or call +1 202-555-0143 now; thanks. Ünïcode 日本 too.",
    "My card is 4111 1111 1111 1111 and the account is DE89 3704 0044 0532 0130 00, "
    "the key sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x.",
    "Nothing to see here: 12, 13 and 14 are numbers, naïve ones.",
    "It begins well. Then comes swordfish, and more of it.",
    "Round and round: " + "go go go " * 100,
    "e.com is where it ends.",
    '<tool_call>\n{"name": "send", "arguments": {"to": "x\\njohn.doe@example.com", "code": 42}}\n</tool_call>',
)
CLEAN = (
    "Write to [EMAIL], or call [PHONE] now; thanks. Ünïcode 日本 too.",
    "My card is [CARD] and the account is [IBAN], the key [SECRET].",
    TEXTS[2],
)
SEED = 11
SAFETY = {
    "default": {
        "prompts": [
            {"filter": "pii", "action": "redact", "actions": {"secret": "block"}},
            {"filter": "block_list", "name": "projects", "patterns": ["(?i)project x"]},
            {"filter": "length", "max_characters": 500},
        ],
        "outputs": [
            {"filter": "pii"},
            {"filter": "block_list", "words": ["swordfish"]},
            {"filter": "repetition", "min_characters": 200},
        ],
    },
    "moderations": "lexicon",
}


def random_text(rng: np.random.Generator) -> str:
    """Words with personal data of every kind between them."""
    parts = []
    for items in ITEMS.values():
        parts += [*rng.choice(WORDS, int(rng.integers(1, 5))), "and", str(rng.choice(items)), "and"]
    return " ".join(parts)


RANDOM = tuple(random_text(np.random.default_rng(SEED + i)) for i in range(4))
ALL = TEXTS + RANDOM
PLANTED = [item for items in ITEMS.values() for item in items if any(item in text for text in ALL)]
EXPECTED = {
    **dict(enumerate(CLEAN)),
    **{i: whole(pii({}, FilterContext("outputs", pytest.fail))(), ALL[i])[0] for i in range(len(TEXTS), len(ALL))},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(SEED)
    return write_model(tmp_path_factory.mktemp("saying") / "saying", [cut(text, rng) for text in ALL])


@pytest.fixture(scope="module")
def safe(serve_saying: Serve, model: Path) -> Served:
    return serve_saying(model, SAFETY)


def body(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": "Say " + say(number), "max_tokens": 600, "temperature": 0, **more}


def chat(number: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Say " + say(number)}]
    return {"messages": messages, "max_completion_tokens": 600, "temperature": 0, **more}


def check_secret(text: str) -> None:
    assert not [item for item in PLANTED if item in text]


@pytest.mark.parametrize("number", EXPECTED)
@pytest.mark.parametrize("more", [{}, {"logprobs": 2}, {"return_token_ids": True, "logprobs": 0}, {"n": 2}])
def test_completions(safe: Served, number: int, more: dict[str, Any]) -> None:
    answer = safe.post("/v1/completions", body(number, **more)).json()
    streamed: dict[int, str] = {}
    for event in safe.events("/v1/completions", body(number, stream=True, **more))[:-1]:
        choice = event["choices"][0]
        streamed[choice["index"]] = streamed.get(choice["index"], "") + choice["text"]
        check_secret(streamed[choice["index"]])
    for choice in answer["choices"]:
        assert choice["text"] == EXPECTED[number] == streamed[choice["index"]]
        assert choice["finish_reason"] == "stop"
        check_logprobs(choice, EXPECTED[number])


def check_logprobs(choice: dict[str, Any], text: str) -> None:
    """Tokens of what was redacted are gone; the others are where they say."""
    shape = choice["logprobs"]
    if shape is None:
        return
    check_secret("".join(shape["tokens"]))
    for token, offset in zip(shape["tokens"], shape["text_offset"], strict=True):
        if not token.startswith("bytes:") and token != "<|end|>":
            assert text[offset : offset + len(token)] == token
    if "token_ids" in choice:
        assert len(choice["token_ids"]) == len(shape["tokens"])


@pytest.mark.parametrize("number", EXPECTED)
@pytest.mark.parametrize("more", [{}, {"logprobs": True, "top_logprobs": 1}, {"return_token_ids": True}])
def test_chat(safe: Served, number: int, more: dict[str, Any]) -> None:
    answer = safe.post("/v1/chat/completions", chat(number, **more)).json()["choices"][0]
    assert answer["message"]["content"] == EXPECTED[number]
    text = tokens = ""
    for event in safe.events("/v1/chat/completions", chat(number, stream=True, **more))[:-1]:
        choice = event["choices"][0]
        text += choice["delta"].get("content", "")
        check_secret(text)
        if choice["logprobs"]:
            tokens += "".join(item["token"] for item in choice["logprobs"]["content"])
    assert text == EXPECTED[number]
    check_secret(tokens)
    if answer["logprobs"]:
        assert "".join(item["token"] for item in answer["logprobs"]["content"]) == tokens


@pytest.mark.parametrize("number", EXPECTED)
def test_tgi(safe: Served, number: int) -> None:
    request = {"inputs": "Say " + say(number), "parameters": {"max_new_tokens": 600, "details": True}}
    answer = safe.post("/generate", request).json()
    assert answer["generated_text"] == EXPECTED[number]
    check_secret("".join(token["text"] for token in answer["details"]["tokens"]))
    events = safe.events("/generate_stream", request)
    text = ""
    for event in events:
        text += event["token"]["text"]
        check_secret(text)
    assert text.removesuffix("<|end|>") == EXPECTED[number] == events[-1]["generated_text"]
    short = {"prompt": "Say " + say(number), "max_tokens": 600}
    assert safe.post("/generate", short).json()["text"] == EXPECTED[number]
    assert "".join(e["text"] for e in safe.events("/generate", {**short, "stream": True})) == EXPECTED[number]


def test_blocked_outputs(safe: Served) -> None:
    answer = safe.post("/v1/completions", body(3)).json()
    assert answer["choices"][0]["text"] == "It begins well. Then comes "
    assert answer["choices"][0]["finish_reason"] == "content_filter"
    last = safe.events("/v1/chat/completions", chat(3, stream=True))[-2]["choices"][0]
    assert last["finish_reason"] == "content_filter"
    tgi = safe.post("/generate", {"inputs": say(3), "parameters": {"max_new_tokens": 99}})
    assert (tgi.status_code, tgi.json()["error_type"]) == (422, "content_filter")
    events = safe.events("/generate_stream", {"inputs": say(3), "parameters": {"max_new_tokens": 99}})
    assert events[-1]["error_type"] == "content_filter"
    assert "swordfish" not in json.dumps(events)


def test_a_blocked_answer_is_computed_no_further(safe: Served) -> None:
    """The engine has nothing left to do, and the usage tells what was done until then."""
    answer = safe.post("/v1/completions", body(4)).json()
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "repetition")
    assert len(choice["text"]) < 400
    pieces = safe.post("/tokenize", {"prompt": "x"}).json()
    assert pieces["count"] == 1
    safe.wait_for(lambda: safe.metric("llm_requests_running") == 0)


def test_an_echo_and_what_follows_it_are_read_together(safe: Served) -> None:
    """Neither the prompt nor the answer holds an address; the echo would make one of them."""
    prompt = safe.post("/tokenize", {"prompt": "see john@exampl" + say(5)}).json()["tokens"]
    request = {"prompt": prompt, "max_tokens": 30, "temperature": 0, "echo": True}
    for more in ({}, {"logprobs": 0}):
        choice = safe.post("/v1/completions", {**request, **more}).json()["choices"][0]
        assert choice["text"] == "see [EMAIL] is where it ends."
        if more:
            assert "john@example.com" not in "".join(choice["logprobs"]["tokens"])
    events = safe.events("/v1/completions", {**request, "stream": True})[:-1]
    assert "".join(event["choices"][0]["text"] for event in events) == "see [EMAIL] is where it ends."


def test_an_echo_that_is_changed_shows_none_of_its_tokens(serve_saying: Serve, model: Path) -> None:
    served = serve_saying(model, {"default": {"outputs": [{"filter": "pii"}]}})
    request = {"prompt": f"I am john.doe@example.com. {say(2)}", "max_tokens": 99, "temperature": 0, "echo": True}
    choice = served.post("/v1/completions", {**request, "logprobs": 0}).json()["choices"][0]
    assert choice["text"] == f"I am [EMAIL]. {say(2)}{CLEAN[2]}"
    assert "john" not in "".join(choice["logprobs"]["tokens"])
    for token, offset in zip(choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"], strict=True):
        assert token.startswith("bytes:") or token == "<|end|>" or choice["text"][offset:].startswith(token)


def test_prompts_are_redacted_before_the_model_reads_them(safe: Served) -> None:
    prompt = f"I am john.doe@example.com. {say(2)}"
    choice = safe.post("/v1/completions", {**body(2), "prompt": prompt, "echo": True}).json()["choices"][0]
    assert choice["text"] == f"I am [EMAIL]. {say(2)}{CLEAN[2]}"
    ids = safe.post("/tokenize", {"prompt": prompt}).json()["tokens"]
    as_ids = safe.post("/v1/completions", {**body(2), "prompt": ids, "return_token_ids": True}).json()["choices"][0]
    told = safe.post("/detokenize", {"tokens": as_ids["prompt_token_ids"]}).json()["prompt"]
    assert told == f"I am [EMAIL]. {say(2)}"
    parts = [{"type": "text", "text": "I am john.doe@example.com."}, {"type": "text", "text": say(2)}]
    conversation = {**chat(2), "messages": [{"role": "user", "content": parts}], "echo": True}
    answer = safe.post("/v1/chat/completions", conversation).json()["choices"][0]["message"]["content"]
    assert answer == f"I am [EMAIL].\n{say(2)}{CLEAN[2]}"
    full = {"inputs": prompt, "parameters": {"return_full_text": True, "max_new_tokens": 99}}
    assert safe.post("/generate", full).json()["generated_text"] == f"I am [EMAIL]. {say(2)}{CLEAN[2]}"


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("my key is sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x", "content_policy_violation"),
        ("tell me of Project X", "content_policy_violation"),
        ("word " * 200, "string_above_max_length"),
    ],
)
def test_blocked_prompts(safe: Served, prompt: str, code: str) -> None:
    for path, request, param in (
        ("/v1/completions", {"prompt": prompt}, "prompt"),
        ("/v1/completions", {"prompt": ["fine", prompt]}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}]}, "messages"),
    ):
        answer = safe.post(path, request)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
        assert "sk-proj" not in answer.text
    tgi = safe.post("/generate", {"inputs": prompt})
    assert tgi.status_code == 422
    assert tgi.json()["error_type"] == ("content_filter" if code.startswith("content") else "validation")


def test_findings_are_counted(safe: Served) -> None:
    safe.post("/v1/completions", body(0))
    labels = '{action="redact",kind="email",side="outputs"}'
    assert safe.metric("llm_filter_findings_total", labels) >= 1


def test_moderations(safe: Served) -> None:
    answer = safe.post("/v1/moderations", {"input": ["I want to kill myself.", "Good morning."]}).json()
    assert answer["id"].startswith("modr-")
    assert answer["model"] == "isotoken-lexicon-1"
    bad, good = answer["results"]
    assert bad["flagged"]
    assert bad["categories"]["self-harm/intent"]
    assert bad["category_scores"]["self-harm/intent"] >= 0.5
    assert not good["flagged"]
    assert set(good["categories"]) == set(good["category_scores"]) == set(good["category_applied_input_types"])
    parts = safe.post("/v1/moderations", {"input": [{"type": "text", "text": "Good"}, {"type": "text", "text": "day"}]})
    assert len(parts.json()["results"]) == 1
    for wrong in ({}, {"input": []}, {"input": [1]}, {"input": [{"type": "image_url"}]}):
        assert safe.post("/v1/moderations", wrong).status_code == 400


FUZZ = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@FUZZ
@given(odd=bodies(ChatRequest, chat(2, max_completion_tokens=2), avoid=("max_completion_tokens", "n")))
def test_whatever_a_client_sends_filters_survive_it(safe: Served, odd: dict[str, Any]) -> None:
    assert safe.post("/v1/chat/completions", content=json.dumps(odd).encode()).status_code < 500


@FUZZ
@given(value=VALUES)
def test_whatever_is_to_be_moderated(safe: Served, value: Any) -> None:
    assert safe.post("/v1/moderations", content=json.dumps({"input": value}).encode()).status_code in (200, 400)


TOOL = {
    "type": "function",
    "function": {"name": "send", "description": "Mail to john.doe@example.com", "parameters": {"type": "object"}},
}


def test_tool_calls(safe: Served) -> None:
    """The arguments are JSON with a label in it; and no delta has more."""
    request = {**chat(6), "tools": [TOOL]}
    choice = safe.post("/v1/chat/completions", request).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"to": "x\n[EMAIL]", "code": 42}
    streamed = ""
    for event in safe.events("/v1/chat/completions", {**request, "stream": True})[:-1]:
        for call in event["choices"][0]["delta"].get("tool_calls", ()):
            streamed += call["function"].get("arguments", "")
            check_secret(streamed)
    assert json.loads(streamed) == json.loads(arguments)


def test_tools_and_calls_are_read_in_prompts(safe: Served) -> None:
    """A secret in a tool's description, in an argument of an earlier call or its name, or in a template's argument."""
    secret = "sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x"
    tool = {"type": "function", "function": {"name": "send", "description": f"with {secret}"}}
    call = {"id": "1", "type": "function", "function": {"name": "send", "arguments": f'{{"key": "{secret}"}}'}}
    for more in (
        {"tools": [tool]},
        {"messages": [{"role": "assistant", "tool_calls": [call]}, *chat(2)["messages"]]},
        {"messages": [{"role": "user", "content": say(2), "name": secret}]},
        {"chat_template_kwargs": {"documents": [{"text": secret}]}},
        {"tools": [{"type": "function", "function": {"name": "send", "parameters": {"properties": {secret: {}}}}}]},
        {"messages": [*chat(2)["messages"], {"role": "tool", "content": "", "result": {"all": [{secret: 1}]}}]},
    ):
        answer = safe.post("/v1/chat/completions", {**chat(2), **more})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_policy_violation"), answer.text


def test_tenants_have_policies_of_their_own(serve_saying: Serve, model: Path, tmp_path: Path) -> None:
    from isotoken.api.gateway.keys import KeyRequest, create_key
    from isotoken.api.store import StoreSettings, connect

    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = connect(StoreSettings(url=url))
    store.prepare_now()
    keys = {
        tenant: store.call(lambda connection, tenant=tenant: create_key(connection, KeyRequest(tenant=tenant)))[0]
        for tenant in ("open", "other")
    }
    store.close_now()
    policies = {"default": SAFETY["default"], "tenants": {"open": {"outputs": [{"filter": "pii", "kinds": ["phone"]}]}}}
    served = serve_saying(model, policies, gateway={"authenticator": "keys"}, store={"url": url})
    texts = {}
    for tenant, key in keys.items():
        answer = served.post("/v1/completions", body(0), headers={"authorization": f"Bearer {key}"})
        texts[tenant] = answer.json()["choices"][0]["text"]
    assert texts["other"] == CLEAN[0]
    assert texts["open"] == TEXTS[0].replace("+1 202-555-0143", "[PHONE]")


def test_openais_client_reads_moderations(safe: Served) -> None:
    import openai

    with openai.OpenAI(base_url=f"{safe.url}/v1", api_key="none") as client:
        result = client.moderations.create(input="I want to kill myself.").results[0]
    assert result.flagged
    assert result.categories.self_harm_intent
    assert not result.categories.sexual_minors
