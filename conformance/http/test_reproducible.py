"""The same request gives the same text: again, in any company, whatever is cached."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from ..spec import spec
from .compare import Told, agree, asked, told, told_in_stream
from .routes import COMPLETIONS, PROMPTS, Route
from .server import MAX_TOGETHER, Server

SAMPLED: dict[str, Any] = {"temperature": 1, "max_tokens": 16}
SHARED = "In the beginning there was a list of words that many prompts have in common, one after the other: "
NUM_WORDS = 40


@spec("HTTP-13")
def test_temperature_0_gives_the_same_text(server: Server, route: Route) -> None:
    for prompt in PROMPTS[:4]:
        texts = [route.texts(server.whole(route, prompt, **server.on))[0] for _ in range(3)]
        assert len(set(texts)) == 1, texts


@spec("HTTP-14")
def test_a_seed_gives_the_same_text(server: Server, route: Route) -> None:
    def text(seed: int) -> str:
        return route.texts(server.whole(route, PROMPTS[1], seed=seed, **SAMPLED, **server.on))[0]

    first = {seed: text(seed) for seed in range(1, 5)}
    for seed, before in first.items():
        assert text(seed) == before, f"seed {seed}"
    assert len(set(first.values())) > 1, f"four seeds gave one text: {first[1]!r}"


@spec("HTTP-14")
def test_a_seed_gives_the_same_choices(server: Server, route: Route) -> None:
    fields = {"n": 4, "seed": 5, **SAMPLED, **server.on}
    texts = route.texts(server.whole(route, PROMPTS[1], **fields))
    assert route.texts(server.whole(route, PROMPTS[1], **fields)) == texts
    stream = server.streamed(route, PROMPTS[1], **fields)
    assert [stream.text(index) for index in range(4)] == texts, "streamed"
    assert len(set(texts)) > 1, f"four choices are one: {texts}"


@spec("HTTP-15")
def test_company_changes_nothing(server: Server, route: Route) -> None:
    """Eight requests, greedy and seeded, first each alone, then four times each, all at once."""
    kinds = [
        {"prompt": prompt, "max_tokens": 12 + 2 * i, **({} if i % 2 else {"temperature": 1, "seed": 100 + i})}
        for i, prompt in enumerate(PROMPTS)
    ]

    def one(kind: dict[str, Any]) -> Told:
        return told_in_stream(route, server.streamed(route, **kind, **server.on, **asked(server, route)))

    alone = [one(kind) for kind in kinds]
    calls: list[Callable[[], Told]] = [partial(one, kinds[i % len(kinds)]) for i in range(MAX_TOGETHER)]
    for i, found in enumerate(server.together(calls)):
        which = i % len(kinds)
        greedy = "seed" not in kinds[which]
        agree(server, alone[which], found, greedy=greedy, where=f"among {MAX_TOGETHER}, {kinds[which]}:")


@spec("HTTP-16")
def test_a_warm_cache_changes_nothing(server: Server) -> None:
    """Cold by a salt of its own; then warm, wholly and in part."""
    server.need(COMPLETIONS)
    words = SHARED + " ".join(f"word{i}" for i in range(NUM_WORDS))
    long = server.facts.max_model_len is None or server.facts.max_model_len >= 600
    shared = words if long else SHARED[:60]
    cached: list[int | None] = []
    for ending in (" and so", " because", ""):
        for fields in ({}, {"temperature": 1, "seed": 9}):
            body = {"prompt": shared + ending, "max_tokens": 12, **fields, **server.on, **asked(server, COMPLETIONS)}
            cold, _ = _choice(server, body | {"cache_salt": uuid.uuid4().hex})
            salt = uuid.uuid4().hex
            _choice(server, body | {"cache_salt": salt, "prompt": shared})
            for _ in range(2):
                warm, found = _choice(server, body | {"cache_salt": salt})
                cached.append(found)
                agree(server, cold, warm, greedy=not fields, where=f"with a warm cache, {ending!r} {fields}:")
    if not any(number is None or number for number in cached):
        server.absent("nothing came from a cache, warm as it should have been")


def _choice(server: Server, body: dict[str, Any]) -> tuple[Told, int | None]:
    """What was answered, and how many tokens of the prompt came from a cache; None where that is not told."""
    answer = server.whole(COMPLETIONS, **body)
    details = answer["usage"].get("prompt_tokens_details") or {}
    return told(COMPLETIONS, answer["choices"][0]), details.get("cached_tokens")


@spec("HTTP-17")
def test_a_small_top_p_is_greedy(server: Server, route: Route) -> None:
    for prompt in PROMPTS[:3]:
        greedy = route.texts(server.whole(route, prompt))
        assert route.texts(server.whole(route, prompt, temperature=1.5, top_p=1e-6, seed=1)) == greedy
