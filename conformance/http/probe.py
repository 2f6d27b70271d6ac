"""Find out what a server is before it is judged: its model, who made it, and which routes can be tested."""

from __future__ import annotations

from typing import Any

import pytest

from .routes import CHAT, COMPLETIONS, PROMPTS, Route
from .server import Facts, Reply, Server

_NOT_OFFERED = (404, 405, 501)

_NEAR_TIES = {"float64": 1e-6, "float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}
"""What a log-probability may move by, in nats, with the company that it is computed in."""


def probe(server: Server) -> Facts:
    """Return what was found out. Raises UsageError where there is no server to be tested."""
    cards = _cards(server)
    names = [card["id"] for card in cards]
    model = server.settings.model or names[0]
    if model not in names:
        raise pytest.UsageError(f"the server does not list the model {model!r}, but: {', '.join(names)}")
    card = cards[names.index(model)]
    refusals = {route.name: why for route in (COMPLETIONS, CHAT) if (why := _refusal(server, route, model))}
    if len(refusals) == 2:
        raise pytest.UsageError(f"the server completes nothing: {'; '.join(refusals.values())}")
    length = card.get("max_model_len")
    return Facts(
        model=model,
        card=card,
        owned_by=str(card.get("owned_by")),
        is_isotoken=card.get("owned_by") == "isotoken",
        max_model_len=length if isinstance(length, int) else None,
        refusals=refusals,
        keeps_going=COMPLETIONS.name not in refusals and _keeps_going(server, model),
        near_tie=_near_tie(server, card),
    )


def _near_tie(server: Server, card: dict[str, Any]) -> float:
    """As asked for; else none, but for an engine that is said not to be batch-invariant."""
    engine = card.get("engine")
    if server.settings.near_tie is not None:
        return server.settings.near_tie
    if not isinstance(engine, dict) or engine.get("batch_invariant") is not False:
        return 0.0
    return _NEAR_TIES.get(str(engine.get("dtype")), 0.0)


def _cards(server: Server) -> list[dict[str, Any]]:
    url = server.settings.url
    try:
        reply = server.get("/v1/models")
    except pytest.fail.Exception as error:
        raise pytest.UsageError(f"no server answers at {url} ({error}); `isotoken serve` starts one") from None
    _refuse_strangers(reply)
    body = reply.body
    cards = body.get("data") if isinstance(body, dict) else None
    if reply.status != 200 or not isinstance(cards, list):
        raise pytest.UsageError(
            f"{url} is no server of the OpenAI API: GET {url}/v1/models gave {reply.status} {reply.text[:200]}"
        )
    good = [card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]
    if not good:
        raise pytest.UsageError(f"the server at {url} lists no model")
    return good


def _refuse_strangers(reply: Reply) -> None:
    if reply.status in (401, 403):
        raise pytest.UsageError(f"the server wants another key: --api-key KEY ({reply.status} {reply.text[:200]})")


def _refusal(server: Server, route: Route, model: str) -> str:
    """Say why a route cannot be tested; nothing where it can, were it only to fail."""
    reply = server.post(route.path, route.body("Hello", {"model": model, "max_tokens": 1}))
    _refuse_strangers(reply)
    if reply.status == 503:
        raise pytest.UsageError(f"the server is not ready: {reply.text[:200]}")
    if reply.status in _NOT_OFFERED:
        return f"{route.path} is not offered ({reply.status})"
    if reply.status == 400 and "template" in reply.text:
        return f"{route.path}: the model has no chat template"
    return ""


def _keeps_going(server: Server, model: str) -> bool:
    """Whether ignore_eos is obeyed: answers to prompts that models end soon are as long as they may be."""
    for prompt in PROMPTS[:2]:
        fields = {"model": model, "max_tokens": 24, "temperature": 0, "ignore_eos": True}
        body = server.post(COMPLETIONS.path, COMPLETIONS.body(prompt, fields)).body
        usage = body.get("usage") if isinstance(body, dict) else None
        if not isinstance(usage, dict) or usage.get("completion_tokens") != 24:
            return False
    return True
