"""The shape of whole answers."""

from __future__ import annotations

from typing import Any

from ..spec import spec
from .routes import CHAT, COMPLETIONS, PROMPTS, Route
from .server import Server

REASONS = ("stop", "length")


def check_envelope(server: Server, body: dict[str, Any], route: Route) -> None:
    assert isinstance(body["id"], str) and body["id"]
    assert body["object"] == route.object
    assert isinstance(body["created"], int)
    assert body["model"] == server.facts.model
    assert [choice["index"] for choice in body["choices"]] == [0]
    (choice,) = body["choices"]
    assert choice["finish_reason"] in REASONS
    assert choice.get("logprobs") is None, "nobody asked for logprobs"


def check_usage(usage: dict[str, Any]) -> None:
    numbers = [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    assert all(type(number) is int and number >= 0 for number in numbers), usage
    assert numbers[0] + numbers[1] == numbers[2], f"the total is not the sum: {usage}"


@spec("HTTP-4")
def test_a_completion(server: Server) -> None:
    server.need(COMPLETIONS)
    body = server.whole(COMPLETIONS, PROMPTS[0])
    check_envelope(server, body, COMPLETIONS)
    assert isinstance(body["choices"][0]["text"], str)


@spec("HTTP-5")
def test_a_chat_completion(server: Server) -> None:
    server.need(CHAT)
    body = server.whole(CHAT, PROMPTS[7])
    check_envelope(server, body, CHAT)
    message = body["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert isinstance(message["content"], str)


@spec("HTTP-6")
def test_usage_counts_prompts_once_and_every_choice(server: Server, route: Route) -> None:
    one = server.whole(route, PROMPTS[1], max_tokens=6, **server.on)
    three = server.whole(route, PROMPTS[1], max_tokens=6, n=3, temperature=1, seed=3, **server.on)
    for body in (one, three):
        check_usage(body["usage"])
    assert one["usage"]["prompt_tokens"] == three["usage"]["prompt_tokens"] > 0
    for body in (one, three):
        if all(choice["finish_reason"] == "length" for choice in body["choices"]):
            assert body["usage"]["completion_tokens"] == 6 * len(body["choices"]), body["usage"]


@spec("HTTP-6")
def test_usage_adds_up_over_prompts(server: Server) -> None:
    server.need(COMPLETIONS)
    apart = [server.whole(COMPLETIONS, prompt)["usage"] for prompt in PROMPTS[:3]]
    together = server.whole(COMPLETIONS, list(PROMPTS[:3]))["usage"]
    check_usage(together)
    for name in ("prompt_tokens", "completion_tokens"):
        assert together[name] == sum(usage[name] for usage in apart), f"{name}: {together}, apart {apart}"


@spec("HTTP-7")
def test_choices_are_numbered_prompt_by_prompt(server: Server) -> None:
    server.need(COMPLETIONS)
    alone = [COMPLETIONS.texts(server.whole(COMPLETIONS, prompt))[0] for prompt in PROMPTS[:3]]
    body = server.whole(COMPLETIONS, list(PROMPTS[:3]), n=2)
    assert sorted(choice["index"] for choice in body["choices"]) == list(range(6))
    assert COMPLETIONS.texts(body) == [text for text in alone for _ in range(2)]
