"""How an answer ends: by length, by a stop string, by a token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..spec import spec
from .routes import COMPLETIONS, PROMPTS, Route
from .server import Server

LENGTH = 32


@spec("HTTP-18")
@pytest.mark.parametrize("count", [1, 2, 7])
def test_no_more_tokens_than_asked_for(server: Server, route: Route, count: int) -> None:
    for prompt in PROMPTS[:3]:
        body = server.whole(route, prompt, max_tokens=count, **server.on)
        used, reason = body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]
        assert used <= count, f"{used} tokens where {count} were asked for"
        assert reason == "length" if used == count and server.on else reason in ("stop", "length")
        assert used == count or reason == "stop", f"{used} of {count} tokens, and the reason is {reason}"


def _text(server: Server, route: Route) -> str:
    """An answer with enough text to stop in the middle of; its length differs with the model."""
    for prompt in PROMPTS:
        (text,) = route.texts(server.whole(route, prompt, max_tokens=LENGTH, **server.on))
        if len(text) >= 12 and "\ufffd" not in text[:12]:
            return text
    pytest.skip("the model's answers are too short to be stopped")


def _prompt_of(server: Server, route: Route, text: str) -> str:
    """The prompt that gives a text."""
    return next(p for p in PROMPTS if route.texts(server.whole(route, p, max_tokens=LENGTH, **server.on)) == [text])


def _stops(text: str) -> Iterator[list[str]]:
    """Stop strings from all over a text: of any length, across tokens, several at once."""
    usable = text.split("\ufffd", maxsplit=1)[0]
    for start in range(0, len(usable) - 4, max(1, len(usable) // 6)):
        for length in (1, 3, 4):
            yield [usable[start : start + length]]
    middle = len(usable) // 2
    yield [usable[middle + 3 : middle + 6], usable[middle : middle + 2]]
    yield [usable[middle : middle + 3], "\u2603\u2604"]


@spec("HTTP-19")
def test_a_stop_string_ends_the_text_before_it(server: Server, route: Route) -> None:
    text = _text(server, route)
    prompt = _prompt_of(server, route, text)
    for stop in _stops(text):
        cut = min(at for at in (text.find(string) for string in stop) if at >= 0)
        fields = {"max_tokens": LENGTH, "stop": stop, **server.on}
        whole = server.whole(route, prompt, **fields)
        assert route.texts(whole) == [text[:cut]], f"stop {stop!r} in {text!r}"
        assert whole["choices"][0]["finish_reason"] == "stop"
        stream = server.streamed(route, prompt, **fields)
        assert stream.text() == text[:cut], f"streamed, stop {stop!r} in {text!r}"


@spec("HTTP-19")
def test_half_a_stop_string_costs_no_text(server: Server, route: Route) -> None:
    text = _text(server, route)
    prompt = _prompt_of(server, route, text)
    stop = [text[len(text) // 3 :][:3] + "\u2603", text[-3:] + "\u2603"]
    assert route.texts(server.whole(route, prompt, max_tokens=LENGTH, stop=stop, **server.on)) == [text]
    assert server.streamed(route, prompt, max_tokens=LENGTH, stop=stop, **server.on).text() == text


@spec("HTTP-20")
def test_stop_tokens(server: Server) -> None:
    server.need(COMPLETIONS)
    fields = {"max_tokens": LENGTH, "return_token_ids": True, **server.on}
    (free,) = server.whole(COMPLETIONS, PROMPTS[1], **fields)["choices"]
    ids = free["token_ids"]
    token = ids[LENGTH // 2]
    at = ids.index(token)
    (stopped,) = server.whole(COMPLETIONS, PROMPTS[1], **fields, stop_token_ids=[token])["choices"]
    assert stopped["token_ids"] == ids[: at + 1]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", token)
    (later,) = server.whole(COMPLETIONS, PROMPTS[1], **fields, stop_token_ids=[token], min_tokens=at + 3)["choices"]
    assert len(later["token_ids"]) >= at + 3
    assert token not in later["token_ids"][: at + 2], "before min_tokens no stop token is drawn"


@spec("HTTP-20")
def test_a_stop_string_is_named_and_shown_where_asked_for(server: Server, route: Route) -> None:
    text = _text(server, route)
    prompt, stop = _prompt_of(server, route, text), text[5:8]
    fields = {"max_tokens": LENGTH, "stop": stop, "include_stop_str_in_output": True, **server.on}
    (choice,) = server.whole(route, prompt, **fields)["choices"]
    assert choice["stop_reason"] == stop
    assert route.text(choice) == text[: text.find(stop) + len(stop)]
