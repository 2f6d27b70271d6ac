"""What is wrong with a request is said, in OpenAI's form, and never as a fault of the server's."""

from __future__ import annotations

from typing import Any

import pytest

from ..spec import spec
from .checks import check_error
from .routes import CHAT, COMPLETIONS, PROMPTS, Route
from .server import Server

BAD_FIELDS: list[dict[str, Any]] = [
    {"temperature": -1},
    {"temperature": "warm"},
    {"top_p": 2},
    {"max_tokens": -1},
    {"max_tokens": "many"},
    {"n": 0},
    {"n": "two"},
    {"stop": 7},
    {"logit_bias": [1, 2]},
    {"presence_penalty": "much"},
    {"seed": "seven"},
    {"stream": "perhaps"},
]
CLIENT_ERRORS = tuple(range(400, 500))


@spec("HTTP-28")
def test_an_unknown_model(server: Server, route: Route) -> None:
    body = server.body(route, PROMPTS[0], {"model": "no-such-model"})
    error = check_error(server.post(route.path, body), 404, all_keys=True)
    assert "no-such-model" in error["message"], error


@spec("HTTP-29")
@pytest.mark.parametrize("fields", BAD_FIELDS, ids=str)
def test_a_bad_field_is_named(server: Server, route: Route, fields: dict[str, Any]) -> None:
    reply = server.post(route.path, server.body(route, PROMPTS[0], fields))
    check_error(reply, *CLIENT_ERRORS, field=next(iter(fields)), all_keys=server.facts.is_isotoken)


@spec("HTTP-29")
def test_a_missing_field_is_named(server: Server, route: Route) -> None:
    field = "messages" if route.is_chat else "prompt"
    reply = server.post(route.path, {"model": server.facts.model, "max_tokens": 1})
    check_error(reply, *CLIENT_ERRORS, field=field)


@spec("HTTP-29")
@pytest.mark.parametrize("messages", [[], "hello", [{"role": "nobody", "content": "x"}], [{"content": "x"}]], ids=str)
def test_bad_messages_are_named(server: Server, messages: Any) -> None:
    server.need(CHAT)
    reply = server.post(CHAT.path, {"model": server.facts.model, "messages": messages, "max_tokens": 1})
    check_error(reply, *CLIENT_ERRORS, field="messages" if server.facts.is_isotoken else "")


@spec("HTTP-29")
@pytest.mark.parametrize("content", [b"", b"{", b'{"prompt": ', b"[1, 2]", b'"text"', b"\xff\xfe"], ids=repr)
def test_a_body_that_is_no_json_object(server: Server, route: Route, content: bytes) -> None:
    reply = server.post(route.path, content=content, headers={"content-type": "application/json"})
    check_error(reply, *CLIENT_ERRORS)


@spec("HTTP-30")
def test_a_prompt_beyond_the_context(server: Server, route: Route) -> None:
    length = server.facts.max_model_len
    if length is None:
        server.absent("the server does not say how long its context is")
    prompt = "a, b; " * (length + 1)  # a token for each sign at least: no vocabulary has longer ones of these
    error = check_error(server.post(route.path, server.body(route, prompt, {})), 400)
    assert not server.facts.is_isotoken or error["code"] == "context_length_exceeded", error


@spec("HTTP-30")
def test_an_answer_beyond_the_context(server: Server) -> None:
    server.need(COMPLETIONS)
    length = server.facts.max_model_len
    if length is None:
        server.absent("the server does not say how long its context is")
    for prompt in ([TOKEN] * (length + 1), [TOKEN] * length):
        reply = server.post(COMPLETIONS.path, server.body(COMPLETIONS, prompt, {"max_tokens": 4}))
        error = check_error(reply, 400)
        assert not server.facts.is_isotoken or error["code"] == "context_length_exceeded", error


TOKEN = 40  # an ordinary token of any vocabulary


@spec("HTTP-31")
@pytest.mark.parametrize("fields", [{"temperature": -1}, {"model": "no-such-model"}, {"n": 0}], ids=str)
def test_a_bad_request_for_a_stream_has_a_status(server: Server, route: Route, fields: dict[str, Any]) -> None:
    reply = server.post(route.path, server.body(route, PROMPTS[0], {**fields, "stream": True}))
    check_error(reply, *CLIENT_ERRORS)


@spec("HTTP-32")
def test_unknown_routes_and_wrong_methods(server: Server) -> None:
    check_error(server.get("/v1/no-such-route"), 404, all_keys=True)
    check_error(server.get(COMPLETIONS.path), 405, all_keys=True)
    check_error(server.post("/v1/models", {}), 405, all_keys=True)
