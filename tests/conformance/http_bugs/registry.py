"""How a bug is registered: with the behaviours that it breaks, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..http_proxy import Answer, Ask, Bug

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"

BUGS: dict[str, Bug] = {"none": Bug(frozenset())}

After = Callable[[Ask, Answer], None]
Before = Callable[[Ask], None]


def after(*breaks: str) -> Callable[[After], After]:
    """Register a bug of answers. Its name is the function's."""

    def register(function: After) -> After:
        BUGS[function.__name__.replace("_", "-")] = Bug(frozenset(f"HTTP-{n}" for n in breaks), after=function)
        return function

    return register


def before(*breaks: str) -> Callable[[Before], Before]:
    """Register a bug of how requests are read."""

    def register(function: Before) -> Before:
        BUGS[function.__name__.replace("_", "-")] = Bug(frozenset(f"HTTP-{n}" for n in breaks), before=function)
        return function

    return register


def answered(answer: Answer) -> bool:
    """Whether it is a whole answer with choices."""
    return answer.status == 200 and isinstance(answer.body, dict) and "choices" in answer.body


def choices(answer: Answer) -> Iterator[dict[str, Any]]:
    """Every choice of an answer, or every part of one."""
    for event in [answer.body, *(answer.events or [])]:
        if isinstance(event, dict):
            yield from event.get("choices") or ()


def spoil(choice: dict[str, Any], text: str) -> None:
    """Put another text in."""
    if "message" in choice:
        choice["message"]["content"] = text
    elif "text" in choice:
        choice["text"] = text
    else:
        choice["delta"]["content"] = text
