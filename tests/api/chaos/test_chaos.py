"""Everything goes wrong at random steps under load: streams end with the tokens of the undisturbed run.

Each test prints its seed; what breaks is repeated with it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.engine import AsyncEngine, Limits
from isotoken.api.errors import EngineFailed
from isotoken.api.text import SamplingParams

WithEngine = Callable[..., None]
Damage = Callable[[list[dict[str, Any]]], None]
LIMITS = Limits(step_timeout_s=2.0, backoff_s=0.01, max_backoff_s=0.05, max_start_attempts=20)
CHAOTIC = {"backend": "chaotic", "kv_cache": "chaotic", "limits": LIMITS}


def requests() -> list[SamplingParams]:
    kinds: list[dict[str, Any]] = [
        {"temperature": 0},
        {"seed": 5, "logprobs": 2},
        {"seed": 6, "n": 2},
        {"seed": 7, "top_p": 0.9, "repetition_penalty": 1.2},
        {"temperature": 0, "stop": ["e", "o"], "min_tokens": 20, "max_tokens": 80},
    ]
    return [SamplingParams(**{"max_tokens": 24 + i, "ignore_eos": True, **kinds[i % 5]}) for i in range(10)]


async def read(stream: Any) -> Any:
    """Return what a client sees: of each choice its text, tokens, log-probabilities and end; or one error."""
    answer: dict[int, list[Any]] = {}
    try:
        async for delta in stream:
            parts = answer.setdefault(delta.index, ["", [], [], None])
            parts[0] += delta.text
            parts[1] += delta.token_ids
            parts[2] += delta.logprobs or []
            parts[3] = (delta.finish_reason, delta.stop_reason)
    except EngineFailed as error:
        return error
    return answer


async def answers(engine: AsyncEngine) -> list[Any]:
    texts = [f"The quick brown fox {'jumps over ' * (i % 4)}{i}" for i in range(10)]
    streams = [
        engine.generate(engine.text.encode(text), params, request_id=f"r{i}")
        for i, (text, params) in enumerate(zip(texts, requests(), strict=True))
    ]
    return await asyncio.gather(*map(read, streams))


def undisturbed(with_engine: WithEngine, damage: Damage) -> list[Any]:
    found: list[Any] = []

    async def body(engine: AsyncEngine) -> None:
        found.extend(await answers(engine))

    damage([])
    with_engine(body, **CHAOTIC)
    return found


def done(chaos: Path) -> list[str]:
    return (chaos / "done").read_text().split() if (chaos / "done").exists() else []


def begin(chaos: Path, damage: Damage, lives: list[dict[str, Any]]) -> None:
    (chaos / "lives").unlink(missing_ok=True)
    damage(lives)


@pytest.mark.parametrize("seed", [20261122, 4, 9])
def test_random_damage_changes_no_token(seed: int, with_engine: WithEngine, chaos: Path, damage: Damage) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    expected = undisturbed(with_engine, damage)
    lives: list[dict[str, Any]] = []
    for _ in range(4):
        steps = sorted(chance.sample(range(6, 20), 2))
        deadly = chance.choice(["kill", "memory", "hang", "kill"])
        if deadly == "memory" and chance.random() < 0.5:
            lives.append({"forward": {steps[0]: "raise"}, "allocate": {chance.randrange(12, 40): "memory"}})
        else:
            lives.append({"forward": {steps[0]: "raise", steps[1]: deadly}})
    begin(chaos, damage, lives)

    async def body(engine: AsyncEngine) -> None:
        assert await answers(engine) == expected
        assert engine.stats.num_restarts >= 2
        assert engine.stats.num_failed_alone == 0
        assert engine.state == "ready"
        assert await answers(engine) == expected  # and it is as good as new

    with_engine(body, **CHAOTIC)
    assert len(done(chaos)) >= 3


@pytest.mark.parametrize(
    ("where", "kind", "calls"),
    [("allocate", "memory", [1, 9, 30]), ("forward", "memory", [1, 2, 11]), ("forward", "hang", [2, 9])],
)
def test_one_kind_of_damage_life_after_life(
    where: str, kind: str, calls: list[int], with_engine: WithEngine, chaos: Path, damage: Damage
) -> None:
    expected = undisturbed(with_engine, damage)
    begin(chaos, damage, [{where: {call: kind}} for call in calls])

    async def body(engine: AsyncEngine) -> None:
        assert await answers(engine) == expected
        assert engine.stats.num_restarts >= len(calls) - 1
        assert engine.stats.num_failed_alone == 0

    with_engine(body, **CHAOTIC)
    assert Counter(done(chaos))[kind] >= len(calls) - 1  # the last may come after all has been said


@pytest.mark.parametrize("step", [1, 7])
def test_no_number_fails_one_request_with_one_clear_error(
    step: int, with_engine: WithEngine, chaos: Path, damage: Damage
) -> None:
    expected = undisturbed(with_engine, damage)
    begin(chaos, damage, [{"forward": {step: "nan"}}])

    async def body(engine: AsyncEngine) -> None:
        found = await answers(engine)
        failed = [answer for answer in found if isinstance(answer, EngineFailed)]
        assert len(failed) == 1
        assert "no number (NaN)" in str(failed[0])
        assert [answer for answer in found if not isinstance(answer, EngineFailed)] == [
            answer for answer, other in zip(expected, found, strict=True) if not isinstance(other, EngineFailed)
        ]
        assert engine.stats.num_restarts == 0
        assert await answers(engine) == expected

    with_engine(body, **CHAOTIC)
    assert done(chaos) == ["nan"]
