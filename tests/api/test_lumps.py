"""Outputs of requests that nobody watches travel in lumps, and nothing of them is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest
from isotoken.api.engine import AsyncEngine
from isotoken.api.engine.lumps import LUMP, Lumps, joined
from isotoken.api.text import SamplingParams
from isotoken.core.types import FinishReason, RequestOutput, TokenLogprobs


def output(name: str, *tokens: int, **more: Any) -> RequestOutput:
    return RequestOutput(request_id=name, token_ids=list(tokens), **more)


def test_the_first_token_goes_at_once_then_lumps_then_the_end() -> None:
    lumps = Lumps()
    lumps.expect("a")
    sent = [lumps.ripe([output("a", step)]) for step in range(1, 40)]
    sent.append(lumps.ripe([output("a", 40, finish_reason=FinishReason.LENGTH)]))
    assert [(step, len(ripe[0].token_ids)) for step, ripe in enumerate(sent, start=1) if ripe] == [
        (1, 1),
        (1 + LUMP, LUMP),
        (1 + 2 * LUMP, LUMP),
        (40, 39 - 2 * LUMP),
    ]
    assert [token for ripe in sent for each in ripe for token in each.token_ids] == list(range(1, 41))


def test_others_pass_and_who_left_is_forgotten() -> None:
    lumps = Lumps()
    assert lumps.ripe([output("b", 1)])[0].token_ids == [1]
    for name in ("a", "b"):
        lumps.expect(name)
        lumps.ripe([output(name, 1)])
    assert lumps.ripe([output("a", 2), output("b", 2), output("c", 2)]) == [output("c", 2)]
    lumps.forget("a")
    assert lumps.ripe([output("a", 3)]) == [output("a", 3)]
    failed = lumps.ripe([output("b", finish_reason=FinishReason.ERROR, error="why")])
    assert failed == [output("b", 2, finish_reason=FinishReason.ERROR, error="why")]
    assert lumps.ripe([output("b", 4)]) == [output("b", 4)]


def test_prompt_scores_come_before_any_token() -> None:
    """The parts of a scored prompt are joined, and do not count as a first token."""
    lumps = Lumps()
    lumps.expect("a")
    scores = [TokenLogprobs(i, -1.0, 1, []) for i in range(3)]
    assert lumps.ripe([output("a", prompt_logprobs=scores[:2])]) == [output("a", prompt_logprobs=scores[:2])]
    assert lumps.ripe([output("a", 7, prompt_logprobs=scores[2:])]) == [output("a", 7, prompt_logprobs=scores[2:])]


def test_what_the_engine_still_counts_is_left_alone() -> None:
    """An engine counts a step's tokens after it has published them."""
    lumps = Lumps()
    lumps.expect("a")
    steps = [output("a", token) for token in range(1, 2 * LUMP)]
    for step in steps:
        lumps.ripe([step])
        assert len(step.token_ids) == 1


def test_joining_keeps_everything_in_order() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    parts = []
    for _ in range(20):
        tokens = [draw.randrange(100) for _ in range(draw.randrange(4))]
        parts.append(output("a", *tokens, logprobs=[TokenLogprobs(t, -0.5, 1, []) for t in tokens]))
    want = [token for part in parts for token in part.token_ids]
    whole = None
    for part in parts:
        whole = joined(whole, part)
    assert whole is not None and whole.token_ids == want
    assert whole.logprobs is not None and [logprob.token_id for logprob in whole.logprobs] == want


PARAMS = {
    "plain": {"max_tokens": 40, "temperature": 0.8, "seed": 3},
    "one token": {"max_tokens": 1, "seed": 4},
    "choices": {"max_tokens": 21, "n": 3, "seed": 5},
    "end of sequence": {"max_tokens": 120, "temperature": 1.5, "seed": 8, "n": 4},
    "logprobs": {"max_tokens": 20, "logprobs": 2, "temperature": 0.0},
    "prompt scores": {"max_tokens": 18, "prompt_logprobs": 1, "n": 2, "seed": 1},
    "scores only": {"max_tokens": 0, "prompt_logprobs": 0},
    "stop strings": {"max_tokens": 60, "seed": 9, "stop": ["e", "o "]},
    "stop token": {"max_tokens": 60, "seed": 2, "stop_token_ids": list(range(40, 120))},
}
PROMPT = list(range(10, 60))


async def in_parts(engine: AsyncEngine, params: SamplingParams) -> dict[int, tuple[Any, ...]]:
    found: dict[int, tuple[Any, ...]] = {}
    async with engine.generate(PROMPT, params, request_id="parts") as stream:
        async for delta in stream:
            text, tokens, logprobs, scores, *_ = found.get(delta.index, ("", [], [], None, None, None))
            found[delta.index] = (
                text + delta.text,
                tokens + delta.token_ids,
                logprobs + (delta.logprobs or []),
                scores or delta.prompt_logprobs,
                delta.finish_reason,
                delta.stop_reason,
            )
    return found


async def at_once(engine: AsyncEngine, params: SamplingParams) -> dict[int, tuple[Any, ...]]:
    async with engine.generate(PROMPT, params, request_id="whole", whole=True) as stream:
        deltas = await stream.whole()
    assert len(deltas) == params.n
    assert stream.stats is not None
    assert stream.stats.num_output_tokens == sum(len(delta.token_ids) for delta in deltas)
    assert len(stream.stats.inter_token_latencies) == sum(max(len(delta.token_ids) - 1, 0) for delta in deltas)
    assert stream.stats.time_to_first_token is None or stream.stats.time_to_first_token <= stream.stats.total_latency
    return {
        d.index: (d.text, d.token_ids, d.logprobs or [], d.prompt_logprobs, d.finish_reason, d.stop_reason)
        for d in deltas
    }


def test_a_whole_answer_is_what_its_parts_are(with_engine: Callable[..., None]) -> None:
    async def body(engine: AsyncEngine) -> None:
        for name, given in PARAMS.items():
            params = SamplingParams(**{"seed": 6, **given})
            assert await at_once(engine, params) == await in_parts(engine, params), name

    with_engine(body)


def test_whole_answers_survive_the_engine(with_engine: Callable[..., None]) -> None:
    """What an engine held back when it died is computed again, and comes out the same."""

    async def body(engine: AsyncEngine) -> None:
        wanted = [SamplingParams(max_tokens=150, seed=seed, ignore_eos=True) for seed in range(4)]
        undisturbed = await asyncio.gather(*(at_once(engine, params) for params in wanted))
        before = engine.stats.num_new_tokens
        tasks = [asyncio.create_task(at_once(engine, params)) for params in wanted]
        while engine.stats.num_new_tokens < before + 4 * (2 * LUMP + 3):
            await asyncio.sleep(0.001)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        assert await asyncio.gather(*tasks) == undisturbed
        assert engine.stats.num_restarts == 1

    with_engine(body)


def test_a_whole_answer_that_is_not_waited_for_frees_its_blocks(with_engine: Callable[..., None]) -> None:
    async def body(engine: AsyncEngine) -> None:
        stream = engine.generate(PROMPT, SamplingParams(max_tokens=200, ignore_eos=True), request_id="w", whole=True)
        reader = asyncio.create_task(stream.whole())
        while not engine.stats.num_running:
            await asyncio.sleep(0.001)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        while engine.stats.num_free_blocks < engine.info.num_blocks:
            await asyncio.sleep(0.001)
        assert engine.stats.num_requests_in_flight == 0

    with_engine(body)


def test_a_late_whole_answer_ends_with_what_there_is(with_engine: Callable[..., None]) -> None:
    async def body(engine: AsyncEngine) -> None:
        params = SamplingParams(max_tokens=200, ignore_eos=True, seed=1)
        async with engine.generate(PROMPT, params, request_id="w", whole=True, deadline_s=0.05) as stream:
            (delta,) = await stream.whole()
        assert delta.finish_reason == "timeout"

    with_engine(body)
