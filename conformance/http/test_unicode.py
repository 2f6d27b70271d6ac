"""Characters that are made of several tokens."""

from __future__ import annotations

from typing import Any

from ..spec import spec
from .routes import PROMPTS, Route
from .server import Server

CHARACTERS = ("é", "🙂", "日", "🦜", "ß")
BROKEN = "\ufffd"


def _split(server: Server) -> list[tuple[str, list[int]]]:
    """Characters of which the model's tokenizer makes several tokens."""
    found = []
    for character in CHARACTERS:
        body: Any = server.post("/tokenize", {"prompt": character, "add_special_tokens": False}).body
        tokens = body.get("tokens") if isinstance(body, dict) else None
        if isinstance(tokens, list) and len(tokens) > 1 and all(isinstance(token, int) for token in tokens):
            found.append((character, tokens))
    return found


@spec("HTTP-36")
def test_characters_are_streamed_whole(server: Server, route: Route) -> None:
    """Only a character's tokens may come, in an order that chance decides: some make characters, some make none."""
    characters = _split(server)
    if not characters:
        server.absent("no /tokenize, or no character of several tokens: there is nothing that could be broken")
    for character, tokens in characters[:3]:
        for seed in range(2):
            fields = {"logit_bias": {str(token): 100 for token in tokens}, "temperature": 2, "seed": seed}
            fields |= {"max_tokens": 24, **server.on}
            (text,) = route.texts(server.whole(route, PROMPTS[0], **fields))
            stream = server.streamed(route, PROMPTS[0], **fields)
            assert not any("UTF-8" in fault for fault in stream.faults), stream.faults
            streamed = stream.text()
            assert streamed.count(BROKEN) == text.count(BROKEN), f"{character}: {streamed!r} streamed, {text!r} whole"
            assert streamed.replace(BROKEN, "") == text.replace(BROKEN, ""), f"{streamed!r} streamed, {text!r} whole"


@spec("HTTP-36")
def test_any_text_comes_back_from_the_prompt(server: Server, route: Route) -> None:
    """Prompts of every script are understood; what answers them is UTF-8."""
    for prompt in ("naïve café", "日本語のテキスト", "🙂🦜👩‍👩‍👧", "a\u0000b", "𝒳"):
        stream = server.streamed(route, prompt)
        assert not any("UTF-8" in fault for fault in stream.faults), stream.faults
        assert stream.text() == route.texts(server.whole(route, prompt))[0]
