"""Log-probabilities: their shapes, and that they are probabilities of the tokens that came."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest

from ..spec import spec
from .checks import spells
from .routes import CHAT, COMPLETIONS, PROMPTS, Route
from .server import Server

SLACK = 1e-3  # for sums of rounded values
EPSILON = 0.02  # nats between a value that was drawn and the same one scored: other batches, reduced precision
QUANTIZED_EPSILON = (
    0.5  # the same where kernels round activations to 8 bits: a decode may round otherwise than a prompt
)


def _check_values(own: float, tops: Iterable[float], *, greedy: bool) -> None:
    values = list(tops)
    assert own <= 1e-6, f"a log-probability above 0: {own}"
    assert all(value <= 1e-6 for value in values), f"a log-probability above 0: {values}"
    assert sum(map(math.exp, values)) <= 1 + SLACK, f"probabilities of more than 1 together: {values}"
    if greedy:
        assert own >= max(values) - 1e-4, f"a greedy token at {own}, where another has {max(values)}"


@spec("HTTP-21")
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_completions_logprobs(server: Server, count: int, temperature: float) -> None:
    server.need(COMPLETIONS)
    fields = {"temperature": temperature, "seed": 4, "logprobs": count, **server.on}
    (choice,) = server.whole(COMPLETIONS, PROMPTS[1], **fields)["choices"]
    found = choice["logprobs"]
    lengths = {name: len(found[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}
    assert len(set(lengths.values())) == 1, lengths
    assert spells(found["tokens"], choice["text"]), f"{found['tokens']} are not {choice['text']!r}"
    assert found["text_offset"] == sorted(found["text_offset"])
    for token, own, tops in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        assert 1 <= len(tops) <= count + 1, f"{len(tops)} alternatives where {count} were asked for"
        assert token in tops, f"{token!r} is not among its own alternatives {tops}"
        assert math.isclose(tops[token], own, abs_tol=1e-4), f"{token!r}: {own} here, {tops[token]} there"
        _check_values(own, tops.values(), greedy=temperature == 0)


@spec("HTTP-22")
@pytest.mark.parametrize("count", [0, 2, 5])
def test_a_chats_logprobs(server: Server, count: int) -> None:
    server.need(CHAT)
    (choice,) = server.whole(CHAT, PROMPTS[1], **CHAT.logprobs(count), **server.on)["choices"]
    items = choice["logprobs"]["content"]
    assert items
    for item in items:
        tops = item["top_logprobs"]
        assert len(tops) == count, f"{len(tops)} alternatives where {count} were asked for"
        values = [top["logprob"] for top in tops]
        assert values == sorted(values, reverse=True), f"not in falling order: {values}"
        _check_values(item["logprob"], values or [item["logprob"]], greedy=True)
        for top in tops[:1]:
            assert math.isclose(top["logprob"], item["logprob"], abs_tol=1e-4), f"greedy, and not the best: {item}"
    if all(item.get("bytes") is not None for item in items):
        content = choice["message"]["content"]
        assert spells([item["bytes"] for item in items], content), f"{items} are not {content!r}"


@spec("HTTP-23")
def test_a_streams_logprobs(server: Server, route: Route) -> None:
    fields = {**route.logprobs(2), **server.on}
    (choice,) = server.whole(route, PROMPTS[1], **fields)["choices"]
    parts = [part["logprobs"] for part in server.streamed(route, PROMPTS[1], **fields).choices(0) if part["logprobs"]]
    whole = choice["logprobs"]
    for name in ("content",) if route.is_chat else ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        streamed = [item for part in parts for item in part[name]]
        assert len(streamed) == len(whole[name]), f"{name}: {len(streamed)} streamed, {len(whole[name])} in the whole"
        assert _near(streamed, whole[name]), f"{name}: {streamed} streamed, {whole[name]} in the whole"


def _near(one: Any, other: Any) -> bool:
    """Equal, numbers but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_near, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
    return bool(one == other)


def _echoed(server: Server, prompt: str, **fields: Any) -> dict[str, Any]:
    """A completion that puts its prompt first, where the server offers that."""
    server.need(COMPLETIONS)
    body = server.body(COMPLETIONS, prompt, {"echo": True, **fields})
    reply = server.post(COMPLETIONS.path, body)
    if reply.status in (400, 422) and not server.facts.is_isotoken:
        server.absent(f"echo is refused: {reply.text[:200]}")
    assert reply.status == 200, reply.text
    choice: dict[str, Any] = reply.body["choices"][0]
    if not choice["text"].startswith(prompt) and not server.facts.is_isotoken:
        server.absent("echo is ignored")
    return choice


@spec("HTTP-24")
def test_echo_puts_the_prompt_first(server: Server) -> None:
    choice = _echoed(server, PROMPTS[1])
    assert choice["text"] == PROMPTS[1] + COMPLETIONS.texts(server.whole(COMPLETIONS, PROMPTS[1]))[0]
    assert server.streamed(COMPLETIONS, PROMPTS[1], echo=True).text() == choice["text"]


@spec("HTTP-24")
def test_a_prompts_scores_are_those_of_the_tokens_when_they_were_drawn(server: Server) -> None:
    """What was drawn becomes a part of the prompt, where it must have the scores that it was drawn with."""
    first = _echoed(server, PROMPTS[1], logprobs=1, return_token_ids=True, **server.on)
    found = first["logprobs"]
    if found is None or len(found["tokens"]) <= 16:
        server.absent("echo has no logprobs of the prompt")
    assert found["token_logprobs"][0] is None, "nothing predicts the first token"
    assert all(value is not None and value <= 1e-6 for value in found["token_logprobs"][1:])
    assert found["text_offset"] == sorted(found["text_offset"])
    drawn = server.whole(COMPLETIONS, PROMPTS[1], logprobs=1, **server.on)["choices"][0]["logprobs"]
    num_drawn = len(drawn["tokens"])
    assert found["tokens"][-num_drawn:] == drawn["tokens"]
    assert _near(found["token_logprobs"][-num_drawn:], drawn["token_logprobs"]), "with echo other values were drawn"
    again = _scored(server, first)
    same = _num_same(found["tokens"], again["tokens"])
    if same <= len(found["tokens"]) - num_drawn:
        server.absent("the text that was drawn is read as other tokens, whose scores are others")
    for index in range(1, same):
        before, now = found["token_logprobs"][index], again["token_logprobs"][index]
        where = "drawn" if index >= len(found["tokens"]) - num_drawn else "in a shorter prompt"
        assert math.isclose(before, now, abs_tol=_slack(server)), (
            f"token {index}, {found['tokens'][index]!r}: {now} in the prompt, {before} {where}"
        )


def _scored(server: Server, choice: dict[str, Any]) -> dict[str, Any]:
    """The log-probabilities of a choice's prompt and text as one prompt: by its token ids where they are told."""
    before, after = choice.get("prompt_token_ids"), choice.get("token_ids")
    prompt = [*before, *after] if before and after else choice["text"]
    body = server.whole(COMPLETIONS, prompt, echo=True, logprobs=1, max_tokens=1)
    scores: dict[str, Any] = body["choices"][0]["logprobs"]
    return scores


def _slack(server: Server) -> float:
    """How far a score may lie from the value that was drawn: the same token computed in another way."""
    engine = server.facts.card.get("engine")
    quantization = engine.get("quantization", "none") if isinstance(engine, dict) else "none"
    return max(EPSILON if quantization == "none" else QUANTIZED_EPSILON, server.facts.near_tie)


def _num_same(one: list[str], other: list[str]) -> int:
    """How many tokens two lists begin with that are the same."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@spec("HTTP-25")
def test_prompt_logprobs_are_what_echo_says(server: Server) -> None:
    prompt = PROMPTS[1]
    scored = _echoed(server, prompt, logprobs=2, max_tokens=0)["logprobs"]["token_logprobs"]
    (choice,) = server.whole(COMPLETIONS, prompt, max_tokens=1, prompt_logprobs=2, return_token_ids=True)["choices"]
    ids, positions = choice["prompt_token_ids"], choice["prompt_logprobs"]
    assert len(positions) == len(ids) == len(scored)
    assert positions[0] is None
    for token_id, position, value in zip(ids[1:], positions[1:], scored[1:], strict=True):
        own = position[str(token_id)]
        assert math.isclose(own["logprob"], value, abs_tol=EPSILON), f"{token_id}: {own}, echo says {value}"
        better = [told["logprob"] for told in position.values() if told["rank"] < own["rank"]]
        assert all(logprob >= own["logprob"] for logprob in better), position
        assert own["rank"] > 2 or len(position) == 2, f"two alternatives were asked for: {position}"
