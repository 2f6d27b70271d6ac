"""Errors on OpenAI's routes: status, code, param, and one shape for all."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.api.server.openai_answers import ErrorResponse

ASK = [{"role": "user", "content": "hi"}]


def error_of(response: Any, status: int) -> dict[str, Any]:
    """Return the error, which has OpenAI's shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    ErrorResponse.model_validate(response.json(), strict=True)
    return dict(response.json()["error"])


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "prompt", "required"),
        ({"prompt": 3}, "prompt", "a string"),
        ({"prompt": []}, "prompt", "[]"),
        ({"prompt": ["a", 1]}, "prompt", "['a', 1]"),
        ({"prompt": ""}, "prompt", "at least one token"),
        ({"prompt": [10**6]}, "prompt", "1000000"),
        ({"prompt": [-1]}, "prompt", "-1"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens", "at least 0"),
        ({"prompt": "a", "max_tokens": "x"}, "max_tokens", "an integer"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens", "1.5"),
        ({"prompt": "a", "temperature": -0.5}, "temperature", "at least 0"),
        ({"prompt": "a", "temperature": "hot"}, "temperature", "a number"),
        ({"prompt": "a", "top_p": 0}, "top_p", "above 0 and at most 1"),
        ({"prompt": "a", "top_k": -2}, "top_k", "-2"),
        ({"prompt": "a", "min_p": 2}, "min_p", "at most 1"),
        ({"prompt": "a", "n": 0}, "n", "from 1 to 128"),
        ({"prompt": "a", "n": 129}, "n", "129"),
        ({"prompt": "a", "presence_penalty": 3}, "presence_penalty", "at most 2"),
        ({"prompt": "a", "repetition_penalty": 0}, "repetition_penalty", "above 0"),
        ({"prompt": "a", "logit_bias": {"1": 101}}, "logit_bias", "101"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias", "'x'"),
        ({"prompt": "a", "logit_bias": {"1": 10**400}}, "logit_bias", "at most 100"),
        ({"prompt": "a", "logit_bias": {"9" * 5000: 1}}, "logit_bias", "token ids"),
        ({"prompt": "a", "logprobs": 21}, "logprobs", "from 0 to 20"),
        ({"prompt": "a", "prompt_logprobs": -1}, "prompt_logprobs", "from 0 to 20"),
        ({"prompt": "a", "stop": [""]}, "stop", "none of them empty"),
        ({"prompt": "a", "stop": ["a"] * 65}, "stop", "64"),
        ({"prompt": "a", "stop": 3}, "stop", "3"),
        ({"prompt": "a", "min_tokens": 20}, "min_tokens", "at most"),
        ({"prompt": "a", "seed": 2**70}, "seed", "64 bits"),
        ({"prompt": "a", "best_of": 3}, "best_of", "3"),
        ({"prompt": "a", "suffix": "b"}, "suffix", "suffix"),
        ({"prompt": "a", "stream_options": {}}, "stream_options", "stream"),
        ({"prompt": "a", "stream": "maybe"}, "stream", "true or false"),
        ({"prompt": "a", "request_id": "x" * 129}, "request_id", "128"),
        ({"prompt": "a", "stream": True, "prompt_logprobs": 1}, "prompt_logprobs", "stream"),
    ],
    ids=str,
)
def test_bad_fields_are_named(server: Any, body: dict[str, Any], param: str, words: str) -> None:
    error = error_of(server.post("/v1/completions", body), 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param in error["message"]
    assert words in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "x", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "messages[0].tool_calls"),
        ({"messages": ASK, "max_completion_tokens": -1}, "max_completion_tokens"),
        ({"messages": ASK, "max_tokens": -1}, "max_tokens"),
        ({"messages": ASK, "max_tokens": 100_000}, "messages"),
        ({"messages": ASK, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": ASK, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": ASK, "continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    ],
    ids=str,
)
def test_bad_chat_fields_are_named_as_the_route_names_them(server: Any, body: dict[str, Any], param: str) -> None:
    assert error_of(server.post("/v1/chat/completions", body), 400)["param"] == param


def test_context_length(server: Any) -> None:
    error = error_of(server.post("/v1/completions", {"prompt": [70] * 2040, "max_tokens": 16}), 400)
    assert error["code"] == "context_length_exceeded"
    assert "2048" in error["message"]
    assert "2040" in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/completions", {"prompt": ["a", "word " * 200_000]}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 200_000}]}, "messages"),
    ],
)
def test_what_can_never_fit_is_not_even_tokenized(server: Any, path: str, body: Any, field: str) -> None:
    error = error_of(server.post(path, body), 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", field)
    assert "1000000 characters" in error["message"]


def test_many_mistakes_are_one_complaint(server: Any) -> None:
    error = error_of(server.post("/v1/completions", {"prompt": "a", "stop_token_ids": ["x"] * 100_000}), 400)
    assert error["param"] == "stop_token_ids[0]"


def test_unknown_model(server: Any) -> None:
    for response in (
        server.post("/v1/completions", {"model": "gpt", "prompt": "a"}),
        server.post("/v1/chat/completions", {"model": "gpt", "messages": ASK}),
        server.post("/tokenize", {"model": "gpt", "prompt": "a"}),
        server.get("/v1/models/gpt"),
        server.get("/v1/models/some/gpt"),
    ):
        error = error_of(response, 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_unknown_route_and_method(server: Any) -> None:
    assert error_of(server.get("/v2/nothing"), 404)["code"] == "not_found"
    response = server.get("/v1/completions")
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert "POST" in response.headers["allow"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff", b'{"prompt": "\xff"}', b"[" * 100_000, b'{"prompt": NaN}'],
    ids=repr,
)
def test_bodies_that_are_no_object(server: Any, content: bytes) -> None:
    error_of(server.post("/v1/completions", content=content), 400)


def test_content_type_does_not_matter(server: Any) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}  # what curl -d sends
    response = server.post("/v1/completions", content=b'{"prompt": "a", "max_tokens": 1}', headers=headers)
    assert response.status_code == 200


def test_detokenize_refuses_unknown_tokens(server: Any) -> None:
    assert error_of(server.post("/detokenize", {"tokens": [10**6]}), 400)["param"] == "tokens"
