"""Whatever a client sends, the answer is never a 5xx and every error has its documented shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isotoken.api.server.openai_answers import ErrorResponse
from isotoken.api.server.openai_schemas import ChatRequest, CompletionRequest
from isotoken.api.server.tgi_answers import TgiError
from isotoken.api.server.tgi_schemas import GenerateParameters, GenerateRequest

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "text", "user", "auto", "{{ 1 }}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "1", "role", "type", "content"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def bodies(model: Any, base: dict[str, Any], avoid: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """A good body with one to three fields replaced by anything."""
    names = [name for name in [*model.model_fields, *model.unsupported] if name not in avoid]
    return st.dictionaries(st.sampled_from(names), VALUES, min_size=1, max_size=3).map(lambda odd: {**base, **odd})


def check(server: Any, path: str, body: Any, error: Any) -> None:
    content = json.dumps(body).encode()
    response = server.post(path, content=content)
    assert response.status_code < 500, (body, response.text)
    if response.status_code != 200:
        error.model_validate(response.json(), strict=True)


FUZZ = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@FUZZ
@given(body=bodies(CompletionRequest, {"prompt": "a", "max_tokens": 2}, avoid=("max_tokens", "n")))
def test_completions(server: Any, body: Any) -> None:
    check(server, "/v1/completions", body, ErrorResponse)


@FUZZ
@given(
    body=bodies(
        ChatRequest,
        {"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 2},
        avoid=("max_completion_tokens", "n"),
    )
)
def test_chat(server: Any, body: Any) -> None:
    check(server, "/v1/chat/completions", body, ErrorResponse)


@FUZZ
@given(
    body=bodies(
        GenerateRequest, {"inputs": "a", "parameters": {"max_new_tokens": 2}}, avoid=("max_tokens", "parameters")
    )
    | bodies(GenerateParameters, {"max_new_tokens": 2}, avoid=("max_new_tokens",)).map(
        lambda parameters: {"inputs": "a", "parameters": parameters}
    )
)
def test_generate(server: Any, body: Any) -> None:
    check(server, "/generate", body, TgiError)


@FUZZ
@given(content=st.binary(max_size=40) | VALUES.map(lambda value: json.dumps(value).encode()))
@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize"])
def test_any_bytes(server: Any, path: str, content: bytes) -> None:
    response = server.post(path, content=content)
    assert response.status_code == 400
    ErrorResponse.model_validate(response.json(), strict=True)
