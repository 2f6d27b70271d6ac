"""With speculation several tokens come in one step: the same text, fewer events, and one TGI event for each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

BODY = {
    "prompt": [70, 71, 72, 73] * 8,
    "max_tokens": 60,
    "logit_bias": {"70": 90, "71": 90, "72": 90, "73": 90},
    "temperature": 0,
}


@pytest.fixture(scope="module")
def speculating(serve_tiny: Callable[..., Any]) -> Any:
    return serve_tiny(config={"drafter": "ngram"})


def test_the_text_is_the_same_and_several_tokens_share_an_event(server: Any, speculating: Any) -> None:
    plain = server.post("/v1/completions", BODY).json()["choices"][0]["text"]
    *events, _ = speculating.events("/v1/completions", {**BODY, "stream": True, "return_token_ids": True})
    assert "".join(event["choices"][0]["text"] for event in events) == plain
    assert max(len(event["choices"][0]["token_ids"]) for event in events) > 1
    assert sum(len(event["choices"][0]["token_ids"]) for event in events) == 60
    assert 0 < speculating.metric("llm_accepted_tokens_total") <= speculating.metric("llm_draft_tokens_total")


def test_answers_in_one_piece_are_counted_token_by_token(serve_tiny: Callable[..., Any]) -> None:
    """Their tokens travel in lumps, which leave what the engine counts as it was."""
    guessing = serve_tiny(config={"drafter": "ngram"})
    names = ("llm_tokens_generated_total", "llm_draft_tokens_total", "llm_accepted_tokens_total")
    used = 0
    for max_tokens in (60, 17, 1):
        body = {**BODY, "max_tokens": max_tokens, "ignore_eos": True}
        used += guessing.post("/v1/completions", body).json()["usage"]["completion_tokens"]
        guessing.wait_for(lambda: guessing.metric(names[0]) >= used)  # noqa: B023  (called at once)
        generated, drafted, accepted = (guessing.metric(name) for name in names)
        assert generated == used
        assert 0 < accepted <= min(drafted, generated)
    assert used == 78


def test_guesses_that_do_not_pay_are_counted_as_given_up(serve_tiny: Callable[..., Any]) -> None:
    dear = serve_tiny(config={"drafter": "ngram", "verify_cost": 0.9})
    prompt = [token for index in range(12) for token in (70 + index % 7, 71, 70 + index % 5)]
    dear.post("/v1/completions", {**BODY, "prompt": prompt, "logit_bias": {}, "ignore_eos": True})
    assert dear.metric("llm_draft_stops_total") >= 1
    assert dear.metric("llm_draft_tokens_total") < 20


def test_tgi_has_an_event_for_each_token(server: Any, speculating: Any) -> None:
    body = {"inputs": "the the the the the the", "parameters": {"max_new_tokens": 40}}
    plain = server.post("/generate", body).json()["generated_text"]
    events = speculating.events("/generate_stream", body)
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert "".join(event["token"]["text"] for event in events) == plain == events[-1]["generated_text"]
    assert events[-1]["details"]["generated_tokens"] == len(events)
