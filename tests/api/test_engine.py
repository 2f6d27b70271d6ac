"""AsyncEngine with a real child process: limits, deadlines, leaving clients, draining, errors and numbers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from isotoken.api.engine import AsyncEngine, Limits, RequestStats
from isotoken.api.errors import ContextLengthError, EngineFailed, NotReady, Overloaded, ParameterError
from isotoken.api.text import SamplingParams
from isotoken.plugins.build import EngineConfig
from isotoken.plugins.hookspecs import hookimpl
from isotoken.plugins.manager import Plugins

WithEngine = Callable[..., None]
LONG = SamplingParams(max_tokens=200, ignore_eos=True, seed=1)
PROMPT = [10, 11, 12, 13, 14, 15, 16, 17]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


def is_idle(engine: AsyncEngine) -> bool:
    stats = engine.stats
    return (stats.num_running, stats.num_waiting, stats.num_free_blocks) == (0, 0, stats.num_blocks)


async def collect(stream: Any) -> dict[int, tuple[str, list[int], Any, Any]]:
    found: dict[int, tuple[str, list[int], Any, Any]] = {}
    async for delta in stream:
        text, ids, _, _ = found.get(delta.index, ("", [], None, None))
        found[delta.index] = (text + delta.text, ids + delta.token_ids, delta.finish_reason, delta.stop_reason)
    return found


def test_what_the_engine_is_and_what_a_request_gets(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        assert engine.state == "ready"
        info = engine.info
        assert (info.backend, info.device, info.dtype) == ("reference", "cpu", "float32")
        assert (info.max_model_len, info.vocab_size, info.eos_token_ids) == (256, 360, {1})
        assert any(reason.startswith("dtype float32") for reason in info.why)
        assert is_idle(engine)
        params = SamplingParams(max_tokens=9, n=3, seed=4, ignore_eos=True)
        found = await collect(engine.generate(PROMPT, params, request_id="r"))
        assert sorted(found) == [0, 1, 2]
        assert len({tuple(ids) for _, ids, _, _ in found.values()}) == 3
        for index, (text, ids, reason, stop) in found.items():
            assert text == engine.text.decode(ids), index
            assert (len(ids), reason, stop) == (9, "length", None)
        await until(lambda: is_idle(engine))

    with_engine(body)


def test_prompts_share_cached_blocks_unless_their_salts_differ(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        async def num_cached(salt: bytes) -> int:
            stream = engine.generate(PROMPT * 4, SamplingParams(max_tokens=1), request_id="r", cache_salt=salt)
            return [delta async for delta in stream][-1].num_cached_tokens

        assert [await num_cached(b"a"), await num_cached(b"a"), await num_cached(b"b")] == [0, 28, 0]
        assert engine.stats.num_prefix_hits == 28

    with_engine(body)


def test_bad_requests_are_refused_before_they_cost_anything(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        def refused(error: type[Exception], prompt_ids: list[int], **fields: Any) -> Any:
            with pytest.raises(error) as caught:
                engine.generate(prompt_ids, SamplingParams(**fields), request_id="r")
            return caught.value

        assert refused(ParameterError, []).field == "prompt"
        assert refused(ParameterError, [360]).value == 360
        assert refused(ParameterError, [-1]).field == "prompt"
        assert refused(ParameterError, PROMPT, logprobs=21).field == "logprobs"
        assert refused(ParameterError, PROMPT, prompt_logprobs=-1).field == "prompt_logprobs"
        assert refused(ContextLengthError, PROMPT * 32, max_tokens=1).num_prompt_tokens == 256
        assert "maximum context length is 256" in str(refused(ContextLengthError, PROMPT, max_tokens=249))
        refused(ContextLengthError, PROMPT * 32, max_tokens=None)
        assert engine.stats.num_requests_in_flight == 0
        scored = await collect(engine.generate(PROMPT * 32, SamplingParams(max_tokens=0), request_id="r"))
        assert scored == {0: ("", [], "length", None)}
        full = await collect(engine.generate(PROMPT, LONG.replace(max_tokens=None), request_id="r"))
        assert len(full[0][1]) == 248

    with_engine(body)


def test_the_queue_is_bounded_in_requests_and_in_prompt_tokens(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        streams = [engine.generate(PROMPT, LONG, request_id=f"r{i}") for i in range(4)]  # two run, two wait
        with pytest.raises(Overloaded, match="4 requests are in flight") as caught:
            engine.generate(PROMPT, LONG, request_id="r4")
        assert caught.value.retry_after >= 1
        await streams[0].aclose()
        streams.append(engine.generate(PROMPT[:1], LONG, request_id="r5"))
        await streams[1].aclose()
        with pytest.raises(Overloaded, match="prompt tokens are waiting"):
            engine.generate(PROMPT * 8, SamplingParams(), request_id="r6")
        for stream in streams:
            await stream.aclose()
        assert engine.stats.num_requests_in_flight == 0
        assert engine.stats.num_waiting_prompt_tokens == 0
        # A prompt longer than the limit is still served when nothing else waits.
        await collect(engine.generate(PROMPT * 8, SamplingParams(max_tokens=2), request_id="r7"))

    with_engine(body, limits=Limits(max_waiting_requests=2, max_waiting_prompt_tokens=40), max_num_seqs=2)


@pytest.mark.parametrize("how", ["aclose", "cancel", "drop"])
@pytest.mark.parametrize("state", ["queued", "prefill", "decode"])
def test_a_client_that_leaves_frees_its_blocks(with_engine: WithEngine, how: str, state: str) -> None:
    async def body(engine: AsyncEngine) -> None:
        holder = engine.generate(PROMPT, LONG, request_id="holder") if state == "queued" else None
        if holder is not None:
            await anext(holder)  # the only row is taken
        prompt = PROMPT * 24 if state == "prefill" else PROMPT  # 192 tokens, 4 a step
        max_tokens = 4096 - len(prompt)  # more than it has time for
        stream = engine.generate(prompt, LONG.replace(max_tokens=max_tokens), request_id="leaver")
        if state == "queued":
            await until(lambda: engine.stats.num_waiting == 1)
        else:
            await until(lambda: engine.stats.num_running == 1)
            assert engine.stats.num_free_blocks < engine.stats.num_blocks
        if state == "decode":
            await anext(stream)
        if how == "aclose":
            await stream.aclose()
        elif how == "cancel":
            reader = asyncio.create_task(collect(stream))
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        else:
            del stream
            gc.collect()
        if holder is not None:
            await until(lambda: engine.stats.num_waiting == 0)
            assert engine.stats.num_running == 1  # the other one goes on
            assert (await collect(holder))[0][2] == "length"
        await until(lambda: is_idle(engine))
        assert engine.stats.num_requests_in_flight == 0
        assert engine.stats.num_new_tokens < max_tokens + (200 if holder is not None else 0)  # it was cut short

    with_engine(body, max_model_len=4096, max_num_seqs=1, max_num_batched_tokens=4)


def test_a_stop_string_ends_the_request_in_the_engine_too(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        text = (await collect(engine.generate(PROMPT, LONG, request_id="r")))[0][0]
        stop = next(piece for i in range(8, len(text)) if "\ufffd" not in (piece := text[i : i + 2]))
        before = engine.stats.num_new_tokens
        found = await collect(engine.generate(PROMPT, LONG.replace(stop=stop), request_id="r"))
        assert found[0][0] == text[: text.index(stop)]
        assert found[0][2:] == ("stop", stop)
        await until(lambda: is_idle(engine))
        assert engine.stats.num_new_tokens - before < 150

    with_engine(body)


def test_a_deadline_ends_a_request_wherever_it_is(with_engine: WithEngine, faulty_plugin: Path) -> None:
    async def body(engine: AsyncEngine) -> None:
        hanging = engine.generate([41] * 3, LONG, request_id="r", deadline_s=0.2)  # computed for ever
        queued = engine.generate(PROMPT, LONG, request_id="r")  # behind it, under the limit's own deadline
        assert (await collect(hanging))[0][1:3] == ([], "timeout")
        assert (await collect(queued))[0][1:3] == ([], "timeout")
        assert engine.stats.num_requests_in_flight == 0

    with_engine(body, backend="faulty", limits=Limits(request_timeout_s=0.5))


def test_a_tokenizer_that_raises_fails_the_request_alone(
    with_engine: WithEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def push(self, token_id: int) -> str:
            raise KeyError(token_id)

    async def body(engine: AsyncEngine) -> None:
        other = engine.generate(PROMPT, LONG, request_id="other")
        with monkeypatch.context() as patch:
            patch.setattr(engine.text, "detokenizer", lambda **_: Broken())
            bad = engine.generate(PROMPT, LONG, request_id="bad")
        with pytest.raises(EngineFailed, match="could not be turned into text"):
            await collect(bad)
        assert (await collect(other))[0][2] == "length"
        await until(lambda: is_idle(engine))

    with_engine(body)


def test_a_slow_reader_gets_everything_in_few_deltas(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        slow = engine.generate(PROMPT, LONG.replace(logprobs=1), request_id="slow")
        fast = await collect(engine.generate(PROMPT, LONG, request_id="fast"))
        await until(lambda: slow.stats is not None)  # all has come, nothing was read
        deltas = [delta async for delta in slow]
        assert len(deltas) == 1
        assert (deltas[0].text, deltas[0].token_ids) == fast[0][:2]
        assert [entry.token_id for entry in deltas[0].logprobs or []] == fast[0][1]

    with_engine(body)


def test_lower_priorities_run_first(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        order: list[str] = []
        holder = engine.generate(PROMPT, LONG, request_id="holder")
        await anext(holder)

        async def run(name: str, priority: int) -> None:
            await collect(engine.generate(PROMPT, SamplingParams(max_tokens=2), request_id=name, priority=priority))
            order.append(name)

        tasks = [asyncio.create_task(run(name, priority)) for name, priority in (("late", 5), ("soon", 1))]
        await until(lambda: engine.stats.num_waiting == 2)
        await holder.aclose()
        await asyncio.gather(*tasks)
        assert order == ["soon", "late"]

    with_engine(body, max_num_seqs=1)


def test_draining_lets_requests_end_and_takes_no_new_ones(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        stream = engine.generate(PROMPT, LONG, request_id="r")
        first = await anext(stream)
        drained = asyncio.create_task(engine.drain(60))
        await until(lambda: engine.state == "draining")
        with pytest.raises(NotReady, match="draining"):
            engine.generate(PROMPT, LONG, request_id="late")
        assert len(first.token_ids) + len((await collect(stream))[0][1]) == 200
        await drained

    with_engine(body)


def test_stopping_fails_what_is_left_and_ends_the_child(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        stream = engine.generate(PROMPT, LONG, request_id="r")
        await anext(stream)
        assert engine.pid is not None
        child = psutil.Process(engine.pid)
        await engine.drain(0.01)  # not enough
        await engine.stop()
        with pytest.raises(EngineFailed, match="shutting down"):
            await collect(stream)
        assert not child.is_running()
        assert engine.state == "stopped"

    with_engine(body)


def test_a_finished_request_is_logged_and_told_to_plugins(
    engine_config: Callable[..., EngineConfig], caplog: pytest.LogCaptureFixture
) -> None:
    class Listener:
        ISOTOKEN_API = "1.0"

        def __init__(self) -> None:
            self.heard: list[RequestStats] = []

        @hookimpl
        def on_request_finished(self, stats: RequestStats) -> None:
            self.heard.append(stats)
            raise RuntimeError("a bad plugin")  # is logged, and hurts nobody

    async def main() -> None:
        engine = await AsyncEngine.start(engine_config(), plugins=Plugins.load([("listener", listener)]))
        try:
            params = SamplingParams(max_tokens=5, n=2, ignore_eos=True)
            await collect(stream := engine.generate(PROMPT, params, request_id="good"))
            assert stream.stats is listener.heard[0]
            gone = engine.generate(PROMPT, LONG, request_id="gone")
            await anext(gone)
            await gone.aclose()
        finally:
            await engine.stop()

    listener = Listener()
    with caplog.at_level(logging.INFO, logger="isotoken.requests"):
        asyncio.run(main())
    good, gone = listener.heard
    assert (good.num_prompt_tokens, good.num_output_tokens, good.finish_reasons) == (8, 10, ("length", "length"))
    assert len(good.inter_token_latencies) == 8
    assert good.queue_time is not None and good.time_to_first_token is not None
    assert 0 <= good.queue_time <= good.time_to_first_token <= good.total_latency
    assert gone.finish_reasons == ("abort",)
    lines = [record.getMessage() for record in caplog.records if record.name == "isotoken.requests"]
    assert len(lines) == 2
    assert lines[0].startswith("good length/length prompt=8 cached=0 generated=10 queue=")
    assert lines[1].startswith("gone abort ")
    assert "a plugin's on_request_finished failed" in caplog.text


def test_the_step_hook_is_called_in_the_child(with_engine: WithEngine, faulty_plugin: Path) -> None:
    async def body(engine: AsyncEngine) -> None:
        await collect(engine.generate(PROMPT, SamplingParams(max_tokens=5, ignore_eos=True), request_id="r"))
        await until(lambda: is_idle(engine))
        steps = (faulty_plugin / "steps").read_text().split()
        assert steps.count("1") == engine.stats.num_steps == 5

    with_engine(body)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "nonesuch"}, "unknown backend 'nonesuch'"),
        ({"quantization": "int3"}, "does not"),
        ({"tensor_parallel_size": 7}, "tensor_parallel_size=7 is not possible"),
        ({"max_model_len": 10**6}, "max_model_len"),
    ],
)
def test_an_engine_that_cannot_start_says_why(with_engine: WithEngine, settings: Any, message: str) -> None:
    async def body(_engine: AsyncEngine) -> None:
        raise AssertionError("it started")

    with pytest.raises(EngineFailed, match=message):
        with_engine(body, **settings)


def test_a_child_that_dies_while_it_loads_is_not_started_for_ever(with_engine: WithEngine, faulty_plugin: Path) -> None:
    (faulty_plugin / "die-at-start").touch()

    async def body(_engine: AsyncEngine) -> None:
        raise AssertionError("it started")

    with pytest.raises(EngineFailed, match="ended while it loaded: it exited with status 9"):
        with_engine(body, backend="faulty")


PARENT = """
import asyncio, os, sys
from pathlib import Path
from isotoken.api.engine import AsyncEngine
from isotoken.api.text import SamplingParams
from isotoken.plugins.build import EngineConfig

async def main():
    config = EngineConfig(model=sys.argv[1], backend=sys.argv[2], block_size=4, num_blocks=256)
    engine = await AsyncEngine.start(config)
    stream = engine.generate([41] * 3 if sys.argv[2] == "faulty" else [10], SamplingParams(), request_id="r")
    if sys.argv[2] != "faulty":
        await anext(stream)
    while sys.argv[2] == "faulty" and not Path(os.environ["FAULTY_DIR"], "hanging").exists():
        await asyncio.sleep(0.01)
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("backend", ["reference", "faulty"])  # idle between steps; in a step that never ends
def test_the_child_ends_when_its_parent_is_killed(model_dir: Path, faulty_plugin: Path, backend: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(model_dir), backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_signals_for_the_group_leave_the_child_alone(with_engine: WithEngine) -> None:
    async def body(engine: AsyncEngine) -> None:
        stream = engine.generate(PROMPT, LONG, request_id="r")
        first = await anext(stream)
        assert engine.pid is not None
        assert os.getpgid(engine.pid) != os.getpgid(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(engine.pid, number)
        assert len(first.token_ids) + len((await collect(stream))[0][1]) == 200
        assert engine.stats.num_restarts == 0

    with_engine(body)
