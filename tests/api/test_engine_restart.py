"""The engine dies in every way there is: the streams go on with the tokens that they would have had."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.engine import AsyncEngine, GenerationDelta, Limits
from isotoken.api.engine.process import EngineProcess
from isotoken.api.errors import EngineFailed, NotReady
from isotoken.api.text import SamplingParams

KILLS, HANGS, RAISES = 40, 41, 42  # as faulty_backend.py has them
WithEngine = Callable[..., None]
Answer = dict[int, list[Any]]


def all_sorts() -> list[SamplingParams]:
    """16 requests: greedy and seeded, with log-probabilities, stop strings, penalties, choices, prompt scores."""
    kinds: list[dict[str, Any]] = [
        {"temperature": 0},
        {"seed": 5},
        {"seed": 6, "logprobs": 2},
        {"temperature": 0, "logprobs": 0, "prompt_logprobs": 1},
        {"seed": 7, "stop": ["e", "o"], "min_tokens": 25, "max_tokens": 200},
        {"seed": 8, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2, "presence_penalty": 0.5},
        {"seed": 9, "n": 2, "logprobs": 1},
        {"temperature": 0, "frequency_penalty": 0.7, "bad_words": ["the"], "logit_bias": {20: -5, 30: 1.5}},
        {"seed": 10, "allowed_token_ids": range(4, 200), "stop_token_ids": [50, 60], "ignore_eos": False},
    ]
    return [SamplingParams(**{"max_tokens": 40 + 3 * i, "ignore_eos": True, **kinds[i % 9]}) for i in range(16)]


def prompt(engine: AsyncEngine, i: int) -> list[int]:
    return engine.text.encode(f"The quick brown fox {'jumps over ' * (i % 5)}{i}")


async def read(stream: Any, progress: Callable[[GenerationDelta], None] = lambda _: None) -> Answer:
    """Everything that a client sees of each choice: text, tokens, log-probabilities, how it ended."""
    answer: Answer = {}
    async for delta in stream:
        texts = answer.setdefault(delta.index, ["", [], [], [], None])
        texts[0] += delta.text
        texts[1] += delta.token_ids
        texts[2] += delta.logprobs or []
        texts[3] += delta.prompt_logprobs or []
        texts[4] = (delta.finish_reason, delta.stop_reason)
        progress(delta)
    return answer


async def answers(engine: AsyncEngine, progress: Callable[[GenerationDelta], None] = lambda _: None) -> list[Answer]:
    streams = [engine.generate(prompt(engine, i), params, request_id=f"r{i}") for i, params in enumerate(all_sorts())]
    return await asyncio.gather(*[read(stream, progress) for stream in streams])


class Killer:
    """Kills the engine's process whenever so many deltas more have come."""

    def __init__(self, engine: AsyncEngine, *, times: int, every: int) -> None:
        self.engine = engine
        self.left = times
        self.every = every
        self.count = 0

    def __call__(self, _delta: GenerationDelta) -> None:
        self.count += 1
        if self.left and self.count % self.every == 0:
            self.left -= 1
            assert self.engine.pid is not None
            os.kill(self.engine.pid, signal.SIGKILL)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_streams_survive_kill_9(with_engine: WithEngine, times: int) -> None:
    async def body(engine: AsyncEngine) -> None:
        undisturbed = await answers(engine)
        killer = Killer(engine, times=times, every=150)
        assert await answers(engine, killer) == undisturbed
        assert killer.left == 0
        assert engine.stats.num_restarts == times
        assert engine.stats.num_failed_alone == 0
        assert engine.state == "ready"

    with_engine(body)


def test_a_request_that_kills_the_engine_is_failed_alone(with_engine: WithEngine, faulty_plugin: Path) -> None:
    async def body(engine: AsyncEngine) -> None:
        undisturbed = await answers(engine)
        started = asyncio.Event()
        others = asyncio.create_task(answers(engine, lambda _: started.set()))
        await started.wait()
        with pytest.raises(EngineFailed, match="brings the engine down"):
            await read(engine.generate([KILLS] * 3, SamplingParams(), request_id="poison"))
        assert await others == undisturbed
        assert engine.stats.num_failed_alone == 1
        assert await answers(engine) == undisturbed

    with_engine(body, backend="faulty")


def test_two_requests_that_kill_are_both_found(with_engine: WithEngine, faulty_plugin: Path) -> None:
    async def body(engine: AsyncEngine) -> None:
        undisturbed = await answers(engine)
        poisons = [engine.generate([KILLS] * 3, SamplingParams(), request_id=f"poison{i}") for i in range(2)]
        others = asyncio.create_task(answers(engine))
        for poison in poisons:
            with pytest.raises(EngineFailed):
                await read(poison)
        assert await others == undisturbed
        assert engine.stats.num_failed_alone == 2

    with_engine(body, backend="faulty", limits=Limits(backoff_s=0.01))


def test_a_request_whose_computation_raises_fails_and_the_others_never_notice(
    with_engine: WithEngine, faulty_plugin: Path
) -> None:
    async def body(engine: AsyncEngine) -> None:
        undisturbed = await answers(engine)
        others = asyncio.create_task(answers(engine))
        with pytest.raises(EngineFailed, match="this prompt cannot be computed"):
            await read(engine.generate([RAISES] * 3, SamplingParams(), request_id="bad"))
        assert await others == undisturbed
        assert engine.stats.num_restarts == 0

    with_engine(body, backend="faulty")


def test_an_engine_that_gives_up_by_itself_is_replayed_too(with_engine: WithEngine, faulty_plugin: Path) -> None:
    """When every request of a step fails, the engine cannot tell whose fault it is and ends; each is then run alone."""

    async def body(engine: AsyncEngine) -> None:
        bad = [engine.generate([RAISES] * 3, SamplingParams(), request_id=f"bad{i}") for i in range(8)]
        for stream in bad:
            with pytest.raises(EngineFailed, match="this prompt cannot be computed"):
                await read(stream)
        assert engine.stats.num_failed_alone == 0
        assert (await read(engine.generate(prompt(engine, 0), SamplingParams(), request_id="good")))[0][4] is not None

    with_engine(body, backend="faulty", limits=Limits(backoff_s=0.01))


def test_a_hung_engine_is_killed_and_the_request_that_hangs_it_failed(
    with_engine: WithEngine, faulty_plugin: Path
) -> None:
    async def body(engine: AsyncEngine) -> None:
        undisturbed = await read(engine.generate(prompt(engine, 1), all_sorts()[1], request_id="other"))
        other = asyncio.create_task(read(engine.generate(prompt(engine, 1), all_sorts()[1], request_id="other")))
        with pytest.raises(EngineFailed):
            await read(engine.generate([HANGS] * 3, SamplingParams(), request_id="hang"))
        assert await other == undisturbed

    with_engine(body, backend="faulty", limits=Limits(step_timeout_s=1.0, backoff_s=0.01))


def test_an_engine_that_cannot_start_again_is_given_up(with_engine: WithEngine, faulty_plugin: Path) -> None:
    async def body(engine: AsyncEngine) -> None:
        stream = engine.generate(prompt(engine, 0), SamplingParams(max_tokens=200, ignore_eos=True), request_id="r")
        await anext(stream)
        (faulty_plugin / "no-start").touch()
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match=r"could not be started again: the device is gone"):
            await read(stream)
        assert engine.state == "stopped"
        assert (faulty_plugin / "starts").read_text() == "x" * 4
        with pytest.raises(NotReady, match="the device is gone"):
            engine.generate(prompt(engine, 0), SamplingParams(), request_id="late")

    with_engine(body, backend="faulty", limits=Limits(max_start_attempts=3, backoff_s=0.01))


def test_a_system_without_a_process_to_spare_is_an_engine_that_cannot_start(
    with_engine: WithEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_process(_config: Any) -> EngineProcess:
        raise OSError("no memory for a process")

    async def body(engine: AsyncEngine) -> None:
        stream = engine.generate(prompt(engine, 0), SamplingParams(max_tokens=200, ignore_eos=True), request_id="r")
        await anext(stream)
        monkeypatch.setattr(EngineProcess, "spawn", no_process)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="no memory for a process"):
            await read(stream)
        assert engine.state == "stopped"

    with_engine(body, limits=Limits(max_start_attempts=2, backoff_s=0.01))


def test_a_supervisor_with_a_bug_leaves_nobody_waiting(
    with_engine: WithEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_process: EngineProcess) -> None:
        raise RuntimeError("a bug")

    async def body(engine: AsyncEngine) -> None:
        stream = engine.generate(prompt(engine, 0), SamplingParams(max_tokens=200, ignore_eos=True), request_id="r")
        await anext(stream)
        monkeypatch.setattr(EngineProcess, "receive", broken)
        with pytest.raises(EngineFailed, match="a bug"):
            await read(stream)
        assert engine.state == "stopped"

    with_engine(body)


def test_stopping_in_the_middle_of_a_trial(with_engine: WithEngine, faulty_plugin: Path) -> None:
    async def body(engine: AsyncEngine) -> None:
        stream = engine.generate([HANGS] * 3, SamplingParams(n=3), request_id="r")
        hanging = faulty_plugin / "hanging"
        for crashes in range(3):
            while not hanging.exists():
                await asyncio.sleep(0.01)
            hanging.unlink()
            assert engine.pid is not None
            if crashes < 2:
                os.kill(engine.pid, signal.SIGKILL)
        await engine.stop()  # one choice stands its trial, the others wait for theirs
        with pytest.raises(EngineFailed, match="shutting down"):
            await read(stream)
        assert engine.stats.num_requests_in_flight == 0

    with_engine(body, backend="faulty", limits=Limits(backoff_s=0.01))


def test_an_engine_that_starts_again_after_failing_goes_on(with_engine: WithEngine, faulty_plugin: Path) -> None:
    async def body(engine: AsyncEngine) -> None:
        params = SamplingParams(max_tokens=200, seed=1, ignore_eos=True)
        undisturbed = await read(engine.generate(prompt(engine, 0), params, request_id="r"))
        stream = engine.generate(prompt(engine, 0), params, request_id="r")
        first = await anext(stream)
        (faulty_plugin / "die-at-start").touch()
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        while (faulty_plugin / "starts").read_text().count("x") < 3:
            await asyncio.sleep(0.01)
        assert engine.state == "restarting"
        late = engine.generate(prompt(engine, 0), params, request_id="late")  # accepted: it waits
        (faulty_plugin / "die-at-start").unlink()
        rest = await read(stream)
        assert first.token_ids + rest[0][1] == undisturbed[0][1]
        assert await read(late) == undisturbed

    with_engine(body, backend="faulty", limits=Limits(max_start_attempts=20, backoff_s=0.01, max_backoff_s=0.2))
