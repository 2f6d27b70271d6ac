"""Biases and bans."""

from __future__ import annotations

from ..spec import spec
from .routes import COMPLETIONS, PROMPTS, Route
from .server import Server

TOKENS = (40, 97)  # ordinary tokens of any vocabulary


@spec("HTTP-26")
def test_a_large_bias_forces_its_token(server: Server, route: Route) -> None:
    """Whichever tokens these are: forced, they come each time, as the logprobs say; the text is their repetition."""
    texts = []
    for token in TOKENS:
        fields = {"logit_bias": {str(token): 100}, "temperature": 1, "seed": 1, "max_tokens": 6}
        (choice,) = server.whole(route, PROMPTS[1], **fields, **route.logprobs(1))["choices"]
        found = choice["logprobs"]
        names = [item["token"] for item in found["content"]] if route.is_chat else found["tokens"]
        assert len(set(names)) == 1, f"token {token} was forced, and {names} came"
        assert len(names) == 6
        texts.append(names[0])
    assert len(set(texts)) == len(texts), f"tokens {TOKENS} are all called {texts}"


@spec("HTTP-26")
def test_a_small_bias_bans_its_token(server: Server, route: Route) -> None:
    body = server.body(route, PROMPTS[1], {"return_token_ids": True, **server.on})
    for _ in range(3):
        reply = server.post(route.path, body)
        ids = reply.body["choices"][0].get("token_ids") if reply.status == 200 else None
        if ids is None:
            server.absent("the server does not tell token ids, so that none can be banned")
        banned = body.setdefault("logit_bias", {})
        assert not set(map(str, ids)) & banned.keys(), f"banned are {list(banned)}, and {ids} came"
        banned[str(ids[0])] = -100


@spec("HTTP-27")
def test_only_allowed_tokens_come(server: Server, route: Route) -> None:
    allowed = list(range(40, 60))
    fields = {"temperature": 1.5, "seed": 2, "return_token_ids": True, **server.on}
    (choice,) = server.whole(route, PROMPTS[1], **fields, allowed_token_ids=allowed)["choices"]
    assert set(choice["token_ids"]) <= set(allowed)


@spec("HTTP-27")
def test_bad_words_do_not_come(server: Server) -> None:
    server.need(COMPLETIONS)
    fields = {"return_token_ids": True, **server.on}
    (choice,) = server.whole(COMPLETIONS, PROMPTS[1], **fields)["choices"]
    words = {token: word for token in choice["token_ids"] if (word := _word(server, token))}
    if not words:
        server.absent("no token came that is a word by itself")
    for token, word in list(words.items())[:3]:
        (banned,) = server.whole(COMPLETIONS, PROMPTS[1], **fields, bad_words=[word])["choices"]
        assert token not in banned["token_ids"], f"{word!r} was banned, and came: {banned['text']!r}"


def _word(server: Server, token: int) -> str:
    """The text of a token, where the text by itself is that token."""
    word = str(server.post("/detokenize", {"tokens": [token]}).body["prompt"])
    ids = server.post("/tokenize", {"prompt": word, "add_special_tokens": False}).body["tokens"]
    return word if ids == [token] else ""
