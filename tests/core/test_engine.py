"""The engine's loop: publishing, faults pinned on requests, statistics, drafters and the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Batch
from isotoken.core.sampling import HostSampler
from isotoken.core.types import EngineError, FinishReason, StepStats, Unsupported

from .drafters import GarbageDrafter, KnowingDrafter
from .toy import ToyRunner
from .world import Setup, World, make_request

POISON = 13


class FaultyRunner(ToyRunner):
    """Raises whenever a batch holds the poison, after having written half of its work."""

    error: BaseException = RuntimeError("the device does not like 13")

    def forward(self, batch: Batch) -> Any:
        logits = super().forward(batch)
        if POISON in batch.input_ids:
            raise self.error
        return logits


class FaultySampler:
    """The toy's logits are all that it sees, so it takes the position for a sign."""

    def sample(self, logits: Any, rows: Any) -> Any:
        raise ValueError("no draw")


def make_world(runner_class: type[ToyRunner] = FaultyRunner, **options: Any) -> World:
    runner = runner_class(num_blocks=60, block_size=4, asynchronous=options.pop("asynchronous", False))
    return World.make(Setup(block_size=4), runner, **options)


def expected(prompt: list[int], **options: Any) -> list[int]:
    world = make_world(ToyRunner)
    world.add(make_request("r", prompt, **options))
    return world.run()["r"].token_ids


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_request_that_raises_fails_alone(asynchronous: bool) -> None:
    world = make_world(asynchronous=asynchronous)
    bans = {"logit_bias": {POISON: -100.0}, "max_tokens": 8}
    prompts = {"a": [1, 2, 3], "bad": [4, POISON, 5], "b": [6, 7]}
    for name, prompt in prompts.items():
        world.add(make_request(name, prompt, temperature=0.9, seed=4, **bans))
    results = world.run()
    assert (results["bad"].finish_reason, results["bad"].token_ids) == (FinishReason.ERROR, [])
    assert results["bad"].error == "RuntimeError: the device does not like 13"
    for name in "ab":
        assert results[name].token_ids == expected(prompts[name], temperature=0.9, seed=4, **bans)


def test_a_lone_request_that_raises_fails_and_the_engine_goes_on() -> None:
    world = make_world()
    world.add(make_request("bad", [POISON]))
    assert world.run()["bad"].finish_reason == FinishReason.ERROR
    world.add(make_request("good", [1, 2], max_tokens=3, logit_bias={POISON: -100.0}))
    assert len(world.run()["good"].token_ids) == 3


class NumblessRunner(ToyRunner):
    """Computes no number after the poison."""

    def forward(self, batch: Batch) -> Any:
        logits = super().forward(batch)
        logits[np.asarray(batch.input_ids)[batch.logits_indices] == POISON] = np.nan
        return logits


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_logits_that_are_no_numbers_fail_their_request_alone(temperature: float) -> None:
    world = make_world(NumblessRunner)
    params = {"logit_bias": {POISON: -100.0}, "max_tokens": 8, "temperature": temperature, "seed": 4, "num_logprobs": 1}
    prompts = {"a": [1, 2, 3], "bad": [4, 5, POISON], "b": [6, 7]}
    for name, prompt in prompts.items():
        world.add(make_request(name, prompt, **params))
    results = world.run()
    assert (results["bad"].finish_reason, results["bad"].token_ids) == (FinishReason.ERROR, [])
    assert "no number (NaN)" in str(results["bad"].error)
    for name in "ab":
        assert results[name].token_ids == expected(prompts[name], **params)


def test_when_everything_raises_the_engine_ends() -> None:
    world = make_world()
    world.add(make_request("a", [POISON]))
    world.add(make_request("b", [1, POISON]))
    with pytest.raises(EngineError, match=r"every request failed.*does not like 13"):
        world.engine.run()


def test_a_lost_device_is_told_from_wrong_requests_by_failing_them_all() -> None:
    world = make_world()
    for attempt in range(2):
        world.add(make_request(f"bad{attempt}", [POISON]))
        world.run()
    world.add(make_request("good", [1], max_tokens=2, logit_bias={POISON: -100.0}))
    world.run()
    for attempt in range(2, 4):
        world.add(make_request(f"bad{attempt}", [POISON]))
        world.run()
    world.add(make_request("bad4", [POISON]))
    with pytest.raises(EngineError, match=r"every request failed.*does not like 13"):
        world.engine.run()


def test_what_the_runner_does_not_support_never_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultyRunner, "error", Unsupported("13"))
    world = make_world()
    for name in "abcde":
        world.add(make_request(name, [POISON]))
    results = world.run()
    assert {result.error for result in results.values()} == {"Unsupported: 13"} and len(results) == 5


def test_running_out_of_memory_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultyRunner, "error", MemoryError("host"))
    world = make_world()
    world.add(make_request("a", [POISON]))
    world.add(make_request("b", [1]))
    with pytest.raises(EngineError, match="host"):
        world.engine.run()


def test_running_out_of_memory_alone_ends_the_engine_too() -> None:
    class Hungry(ToyRunner):
        def forward(self, batch: Batch) -> Any:
            if POISON in batch.input_ids:
                raise MemoryError("host") if len(batch.row_ids) == 1 else RuntimeError("something")
            return super().forward(batch)

    world = make_world(Hungry)
    world.add(make_request("a", [1], max_tokens=1))
    world.add(make_request("last", [POISON]))
    with pytest.raises(EngineError, match="host"):
        world.engine.run()


def test_an_interrupt_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultyRunner, "error", KeyboardInterrupt())
    world = make_world()
    world.add(make_request("a", [POISON]))
    with pytest.raises(KeyboardInterrupt):
        world.engine.run()


def test_a_sampler_that_raises_is_pinned_too() -> None:
    world = make_world(ToyRunner, sampler=FaultySampler())
    world.add(make_request("a", [1]))
    assert world.run()["a"].error == "ValueError: no draw"


def test_parameters_that_break_the_batch_fail_their_request() -> None:
    world = make_world(ToyRunner)
    world.add(make_request("bad", [1], logit_bias={2: "much"}))
    world.add(make_request("good", [1], max_tokens=2, ignore_eos=True))
    results = world.run()
    assert results["bad"].finish_reason == FinishReason.ERROR and len(results["good"].token_ids) == 2


def test_a_fault_in_publish_is_nobodys_request() -> None:
    def publish(outputs: Any) -> None:
        raise OSError("the pipe is closed")

    runner = ToyRunner(num_blocks=8, block_size=4)
    world = World.make(Setup(block_size=4), runner)
    world.engine._publish = publish
    world.add(make_request("a", [1]))
    with pytest.raises(OSError, match="pipe"):
        world.engine.run()


def test_outputs_go_out_at_once_unless_the_runner_computes_meanwhile() -> None:
    """An asynchronous runner's tokens are published after the next forward began, before it is waited for."""
    for asynchronous in (False, True):
        log: list[str] = []

        class Logging(ToyRunner):
            def forward(self, batch: Batch) -> Any:
                log.append("forward")  # noqa: B023  (called within the iteration)
                return super().forward(batch)

        world = make_world(Logging, asynchronous=asynchronous)
        publish = world.engine._publish
        world.engine._publish = lambda outputs: (log.append("publish"), publish(outputs))[1]  # noqa: B023
        world.add(make_request("r", [1, 2], max_tokens=3, ignore_eos=True))
        world.run()
        late = ["forward", "forward", "publish", "forward", "publish", "publish"]
        assert log == (late if asynchronous else ["forward", "publish"] * 3)


def test_publish_may_abort_and_add() -> None:
    world = make_world(ToyRunner, asynchronous=True)
    publish = world.engine._publish

    def meddle(outputs: Any) -> None:
        publish(outputs)
        if outputs[0].request_id == "a" and "late" not in world.requests:
            world.engine.abort("b")
            world.add(make_request("late", [5, 6], max_tokens=4, ignore_eos=True))

    world.engine._publish = meddle
    for name in "ab":
        world.add(make_request(name, [1, 2, 3], max_tokens=9, ignore_eos=True))
    results = world.run()
    assert len(results["a"].token_ids) == 9 and results["b"].finish_reason is None
    assert results["late"].token_ids == expected([5, 6], max_tokens=4, ignore_eos=True)


def test_who_left_while_a_step_failed_is_not_run_again() -> None:
    """It holds no row and no blocks any more: running it would write over another's."""

    class FailsOnce(HostSampler):
        fails = False

        def sample(self, logits: Any, rows: Any) -> Any:
            if self.fails:
                self.fails = False
                raise RuntimeError("once")
            return super().sample(logits, rows)

    row_ids: list[int] = []

    class Watched(ToyRunner):
        def forward(self, batch: Batch) -> Any:
            row_ids.extend(batch.row_ids.tolist())
            return super().forward(batch)

    sampler = FailsOnce()
    world = make_world(Watched, asynchronous=True, sampler=sampler)
    publish = world.engine._publish

    def leave(outputs: Any) -> None:
        publish(outputs)
        sampler.fails = world.engine.abort("b")

    world.engine._publish = leave
    for name, prompt in {"a": [1, 2, 3], "b": [4, 5, 6, 7, 8, 9]}.items():
        world.add(make_request(name, prompt, max_tokens=9, ignore_eos=True))
    assert world.run()["a"].token_ids == expected([1, 2, 3], max_tokens=9, ignore_eos=True)
    assert min(row_ids) == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_abort_is_silent_and_final(asynchronous: bool) -> None:
    world = make_world(ToyRunner, asynchronous=asynchronous)
    world.add(make_request("r", [1, 2, 3], max_tokens=50, ignore_eos=True))
    for _ in range(3):
        world.step()
    said = 2 if asynchronous else 3  # the last step's token would have gone out during the next one
    assert world.engine.abort("r") and not world.engine.abort("r")
    world.run()
    assert world.results["r"].finish_reason is None and len(world.results["r"].token_ids) == said


def test_steps_are_counted() -> None:
    seen: list[StepStats] = []
    outputs = {"r": expected([1, 2, 3, 4, 5], max_tokens=9, ignore_eos=True)}
    runner = ToyRunner(num_blocks=60, block_size=4)
    world = World.make(Setup(block_size=4, drafter=lambda _: KnowingDrafter(3, outputs)), runner, on_step=seen.append)
    world.add(make_request("r", [1, 2, 3, 4, 5], max_tokens=9, ignore_eos=True))
    world.run()
    world.add(make_request("again", [1, 2, 3, 4, 5], max_tokens=0))
    world.run()
    assert [stats.num_tokens for stats in seen] == [5, 4, 4, 1]
    assert [stats.num_new_tokens for stats in seen] == [1, 4, 4, 0]
    assert [(stats.num_drafted, stats.num_accepted) for stats in seen] == [(0, 0), (3, 3), (3, 3), (0, 0)]
    assert [(stats.num_prefix_queries, stats.num_prefix_hits) for stats in seen] == [(5, 0), (0, 0), (0, 0), (5, 4)]
    assert [stats.num_requests for stats in seen] == [1] * 4 and seen[0].num_running == 1 and seen[-1].num_running == 0
    assert all(stats.num_blocks == 60 and stats.duration > 0 for stats in seen) and seen[-1].num_free_blocks == 60


def test_a_drafter_hears_of_every_end() -> None:
    released: list[str] = []

    class Listening(GarbageDrafter):
        def release(self, request_id: str) -> None:
            released.append(request_id)

    runner = FaultyRunner(num_blocks=60, block_size=4)
    world = World.make(Setup(block_size=4, drafter=lambda _: Listening(2)), runner)
    world.add(make_request("done", [1], max_tokens=1, logit_bias={POISON: -100.0}))
    world.add(make_request("late", [1], deadline=-1.0))
    world.add(make_request("bad", [POISON]))
    world.add(make_request("left", [1], max_tokens=50))
    world.step()
    world.engine.abort("left")
    world.run()
    assert sorted(released) == ["bad", "done", "late", "left"]


def test_close_closes_the_runner() -> None:
    world = make_world(ToyRunner)
    world.engine.close()
    assert world.runner.closed


def test_a_step_without_logits_waits_for_nothing() -> None:
    class Strict:
        def sample(self, logits: Any, rows: Any) -> Any:
            raise AssertionError("nothing was to be drawn")

    runner = ToyRunner(num_blocks=60, block_size=4, max_num_batched_tokens=4)
    world = World.make(Setup(block_size=4), runner, sampler=Strict())
    world.add(make_request("r", [1] * 9))
    world.step()
    world.step()
    assert np.isfinite(runner.caches[0][0][:2]).all()
