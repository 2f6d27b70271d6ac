"""Exceptions in the words of HTTP, on OpenAI's routes and on TGI's."""

from __future__ import annotations

from pathlib import Path

import pytest
from isotoken.api.errors import ContextLengthError, EngineFailed, NoChatTemplate, NotReady, Overloaded, ParameterError
from isotoken.api.server.engine_metrics import TokenRate
from isotoken.api.server.errors import ApiError, ClientGone, failure_of, renamed
from isotoken.api.server.rates import SlidingWindow
from isotoken.api.server.served import default_name
from litestar.exceptions import InternalServerException


@pytest.mark.parametrize(
    ("error", "status", "tgi_status", "kind", "tgi_kind", "code"),
    [
        (ParameterError("top_p", 3, "at most 1"), 400, 422, "invalid_request_error", "validation", "invalid_value"),
        (ContextLengthError(9, 1, 8), 400, 422, "invalid_request_error", "validation", "context_length_exceeded"),
        (ApiError(408, "late"), 408, 408, "timeout_error", "incomplete_generation", "timeout"),
        (Overloaded("full", 2.5), 429, 429, "rate_limit_error", "overloaded", "rate_limit_exceeded"),
        (EngineFailed("broken"), 500, 424, "server_error", "generation", "engine_error"),
        (NotReady("draining"), 503, 503, "service_unavailable_error", "unhealthy", "not_ready"),
        (RecursionError(), 400, 422, "invalid_request_error", "validation", "invalid_json"),
        (ClientGone(), 499, 499, "invalid_request_error", "validation", "client_closed_request"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
            400,
            422,
            "invalid_request_error",
            "validation",
            "invalid_json",
        ),
        (InternalServerException("secret"), 500, 424, "server_error", "generation", "internal_error"),
        (ZeroDivisionError("secret"), 500, 424, "server_error", "generation", "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_failures(error: Exception, status: int, tgi_status: int, kind: str, tgi_kind: str, code: str) -> None:
    failure = failure_of(error)
    body = failure.openai()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert (failure.status, body["type"], body["code"]) == (status, kind, code)
    assert (failure.tgi_status, failure.tgi()["error_type"]) == (tgi_status, tgi_kind)
    assert "secret" not in body["message"]  # what is unknown is logged, not told


def test_a_model_without_a_chat_template_has_a_remedy() -> None:
    told = failure_of(NoChatTemplate("rl")).openai()["error"]
    assert (told["param"], told["code"]) == ("messages", "invalid_value")
    assert told["message"] == (
        "the model 'rl' has no chat template: use /v1/completions, or start the server with --chat-template FILE"
    )


def test_headers_tell_clients_when_to_come_again() -> None:
    assert dict(failure_of(Overloaded("full", 2.5)).headers) == {"retry-after": "3", "retry-after-ms": "2500"}
    assert dict(failure_of(EngineFailed("broken")).headers) == {"x-should-retry": "false"}


def test_fields_have_the_routes_names() -> None:
    error = renamed(ParameterError("max_tokens", -1, "at least 0"), {"max_tokens": "max_new_tokens"})
    assert error.failure.param == "max_new_tokens"
    assert error.failure.message.startswith("max_new_tokens = -1")


def test_models_of_the_hubs_cache_have_their_ids() -> None:
    assert default_name(Path("/cache/hub/models--owner--name/snapshots/0123abc")) == "owner/name"
    assert default_name(Path("/models/mine")) == "mine"


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    window, rate = SlidingWindow(60), TokenRate()
    window.add(1)
    assert rate.rate(0) == 0
    now += 10
    window.add(2)
    assert window.total() == 3
    assert rate.rate(500) == 50
    now += 55
    assert window.total() == 2
    assert rate.rate(500) == 0  # nothing came of late
    now += 100
    assert window.total() == 0


def test_an_internal_error_is_logged_without_the_text_that_it_was_about(caplog: pytest.LogCaptureFixture) -> None:
    """A UnicodeError's repr holds all of it."""
    text = " ".join(["a", "secret", "\ud83d"])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        assert failure_of(error).status == 500
    assert "internal error: UnicodeEncodeError" in caplog.text
    assert "test_failures.py" in caplog.text  # where it happened
    assert "a secret" not in caplog.text
