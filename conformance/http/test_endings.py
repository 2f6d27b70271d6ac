"""How an answer ends: by length, by a stop string, by a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

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


class Free(NamedTuple):
    """An answer that nothing stops, and a clean stretch of its text to take stop strings from."""

    prompt: str
    text: str
    stretch: str


def _free(server: Server, route: Route) -> Free:
    """The answer with the longest clean stretch: how long answers are, and how clean, differs with the model."""
    found = []
    for prompt in PROMPTS[:6]:
        (text,) = route.texts(server.whole(route, prompt, max_tokens=LENGTH, **server.on))
        found.append(Free(prompt, text, max(text.split("\ufffd"), key=len)))
    best = max(found, key=lambda free: len(free.stretch))
    if len(best.stretch) < 8:
        pytest.skip("the model's answers are too short to be stopped")
    return best


def _stops(stretch: str) -> Iterator[list[str]]:
    """Stop strings from all over a text: of any length, across tokens, several at once."""
    for start in range(0, len(stretch) - 4, max(1, len(stretch) // 4)):
        for length in (1, 4):
            yield [stretch[start : start + length]]
    middle = len(stretch) // 2
    yield [stretch[middle + 2 : middle + 4], stretch[middle : middle + 2]]
    yield [stretch[middle : middle + 3], "\u2603\u2604"]


@spec("HTTP-19")
def test_a_stop_string_ends_the_text_before_it(server: Server, route: Route) -> None:
    free = _free(server, route)
    for stop in _stops(free.stretch):
        cut = min(at for at in (free.text.find(string) for string in stop) if at >= 0)
        fields = {"max_tokens": LENGTH, "stop": stop, **server.on}
        whole = server.whole(route, free.prompt, **fields)
        assert route.texts(whole) == [free.text[:cut]], f"stop {stop!r} in {free.text!r}"
        assert whole["choices"][0]["finish_reason"] == "stop"
        stream = server.streamed(route, free.prompt, **fields)
        assert stream.text() == free.text[:cut], f"streamed, stop {stop!r} in {free.text!r}"


@spec("HTTP-19")
def test_half_a_stop_string_costs_no_text(server: Server, route: Route) -> None:
    free = _free(server, route)
    fields = {"max_tokens": LENGTH, "stop": [free.stretch[2:5] + "\u2603", free.text[-3:] + "\u2603"], **server.on}
    assert route.texts(server.whole(route, free.prompt, **fields)) == [free.text]
    assert server.streamed(route, free.prompt, **fields).text() == free.text


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
    free = _free(server, route)
    stop = free.stretch[3:6]
    fields = {"max_tokens": LENGTH, "stop": stop, "include_stop_str_in_output": True, **server.on}
    (choice,) = server.whole(route, free.prompt, **fields)["choices"]
    assert choice["stop_reason"] == stop
    assert route.text(choice) == free.text[: free.text.find(stop) + len(stop)]
