"""kill -9 on torch in float32: a stream goes on with the tokens it would have had, for none of them is a near-tie."""

from __future__ import annotations

import asyncio
import os
import signal
from importlib.util import find_spec

import pytest
from isotoken.api.engine import AsyncEngine, GenerationDelta, Limits
from isotoken.api.text import SamplingParams
from isotoken.models import BUILTIN, DEFAULT_MODEL
from isotoken.plugins.build import EngineConfig

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")

NUM_TOKENS = 48
MARGIN = 0.005  # nats between the best and the next; float32 moves a logit by some 1e-5 with the company it is in
PROMPTS = [
    "The capital of France is",
    "What is the capital of Japan?",
    "Once upon a time",
    "The quick brown fox",
    "Water boils at",
    "1, 2, 3, 4, 5,",
]
GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=2)


class Streams:
    """Reads every prompt's answer at once, and kills the engine when so many tokens have come in all."""

    def __init__(self, engine: AsyncEngine, kill_at: tuple[int, ...] = ()) -> None:
        self.engine = engine
        self.kill_at = set(kill_at)
        self.count = 0
        self.margins: list[float] = []

    async def read(self, number: int) -> list[int]:
        prompt = self.engine.text.encode(PROMPTS[number])
        tokens: list[int] = []
        async for delta in self.engine.generate(prompt, GREEDY, request_id=str(number)):
            tokens += delta.token_ids
            self._note(delta)
        return tokens

    def _note(self, delta: GenerationDelta) -> None:
        for position in delta.logprobs or ():
            (_, best), (_, second) = position.top
            self.margins.append(best - second)
            self.count += 1
            if self.count in self.kill_at:
                assert self.engine.pid is not None
                os.kill(self.engine.pid, signal.SIGKILL)

    async def all(self) -> list[list[int]]:
        return await asyncio.gather(*[self.read(number) for number in range(len(PROMPTS))])


@pytest.mark.slow
def test_streams_survive_kill_9_on_torch() -> None:
    async def main() -> None:
        config = EngineConfig(
            model=str(BUILTIN[DEFAULT_MODEL]),
            backend="torch",
            device="cpu",
            dtype="float32",
            max_model_len=256,
            max_num_seqs=8,
            max_num_batched_tokens=24,  # so that prompts and replays are computed in chunks of other sizes
            num_blocks=128,
            num_threads=1,
        )
        engine = await AsyncEngine.start(config, Limits(backoff_s=0.01))
        try:
            quiet = Streams(engine)
            undisturbed = await quiet.all()
            assert min(quiet.margins) > MARGIN, "a near-tie: these prompts prove nothing"
            total = NUM_TOKENS * len(PROMPTS)
            disturbed = Streams(engine, kill_at=(total // 6, total // 2, total * 5 // 6))
            assert await disturbed.all() == undisturbed
            assert engine.stats.num_restarts == 3
            assert engine.stats.num_failed_alone == 0
            alone = Streams(engine)
            assert [await alone.read(number) for number in range(len(PROMPTS))] == undisturbed
        finally:
            await engine.stop()

    async def in_time() -> None:
        async with asyncio.timeout(280):
            await main()

    asyncio.run(in_time())
