"""A request that leaves no token to draw is told so: before, where it can be known, else as the error of its answer."""

from __future__ import annotations

from typing import Any

import pytest

EOS = 0  # of the tiny model
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"allowed_token_ids": [EOS], "min_tokens": 2}, "allowed_token_ids"),
        ({"allowed_token_ids": [EOS, 9], "stop_token_ids": [9], "min_tokens": 1}, "allowed_token_ids"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_could_ever_be_drawn(server: Any, path: str, fields: dict[str, Any], named: str, stream: bool) -> None:
    prompt = {"prompt": "the fox"} if path == COMPLETIONS else {"messages": [{"role": "user", "content": "the fox"}]}
    answer = server.post(path, {**prompt, "max_tokens": 4, "stream": stream, **fields})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == named
    assert "at least one token must be left" in answer.json()["error"]["message"]


def test_nothing_is_left_later_on(server: Any) -> None:
    """The letter may come, but not twice: after one there is nothing."""
    (letter,) = server.post("/tokenize", {"prompt": "q", "add_special_tokens": False}).json()["tokens"]
    body = {"prompt": "the fox", "allowed_token_ids": [letter], "bad_words": ["qq"], "temperature": 0, "max_tokens": 8}
    assert server.post("/tokenize", {"prompt": "qq", "add_special_tokens": False}).json()["tokens"] == [letter] * 2
    answer = server.post(COMPLETIONS, body)
    assert answer.status_code == 500, answer.text
    assert answer.json()["error"]["code"] == "engine_error"
    assert answer.json()["error"]["message"].startswith("no token is left to draw")
    (error,) = [event for event in server.events(COMPLETIONS, {**body, "stream": True}) if "error" in event]
    assert error["error"]["message"].startswith("no token is left to draw")
    assert server.metric("llm_engine_restarts_total") == 0
