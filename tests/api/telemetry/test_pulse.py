"""An engine that is stuck is told from one that is slow."""

from __future__ import annotations

import os
import time

import pytest
from isotoken.api.engine.pulse import LOOK_S, CpuMeter, Pulse, StepTimes
from isotoken.core.types import StepStats


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Process:
    """Uses so many cores."""

    def __init__(self, share: float) -> None:
        self.cores = share

    def share(self, now: float) -> float:
        return self.cores


def step(num_tokens: int, seconds: float) -> StepStats:
    return StepStats(
        num_running=1, num_waiting=0, num_requests=1, num_tokens=num_tokens, num_new_tokens=1, num_blocks=8,
        num_free_blocks=4, num_preemptions=0, num_prefix_queries=0, num_prefix_hits=0, num_drafted=0, num_accepted=0,
        duration=seconds,
    )  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(5.0, clock=clock)


def wait(pulse: Pulse, clock: Clock, seconds: int, num_tokens: int = 1) -> list[bool]:
    """Look every second; return what was seen each time."""
    seen = []
    for _ in range(seconds):
        clock.now += LOOK_S
        seen.append(pulse.look(lambda: num_tokens))
    return seen


@pytest.mark.parametrize("cores", [0.0, 1.0])
def test_an_idle_engine_is_never_stuck(pulse: Pulse, clock: Clock, cores: float) -> None:
    pulse.reset(Process(cores))  # type: ignore[arg-type]
    pulse.heard(step(1, 0.01), has_work=False)
    assert not any(wait(pulse, clock, 100))
    assert pulse.silence == 0


def test_one_that_computes_nothing_is_stuck_after_the_patience(pulse: Pulse, clock: Clock) -> None:
    pulse.reset(Process(0.0))  # type: ignore[arg-type]
    pulse.asked()
    pulse.heard(step(2048, 100.0), has_work=True)  # however slow its steps are
    seen = wait(pulse, clock, 10, num_tokens=2048)
    assert seen == [False] * 5 + [True] * 5
    assert pulse.silence == 10
    pulse.heard(step(1, 0.01), has_work=True)
    assert not pulse.is_stuck


def test_one_that_computes_has_as_long_as_its_steps_take(pulse: Pulse, clock: Clock) -> None:
    pulse.reset(Process(1.0))  # type: ignore[arg-type]
    pulse.heard(step(2048, 8.0), has_work=True)
    assert wait(pulse, clock, 40, num_tokens=2048).index(True) == 32  # four times the slowest step of that size
    pulse.heard(step(1, 0.05), has_work=True)
    assert wait(pulse, clock, 10, num_tokens=1).index(True) == 5  # no prompt is in hand: it should be quick


def test_the_first_steps_are_given_time(pulse: Pulse, clock: Clock) -> None:
    pulse.reset(Process(0.0))  # type: ignore[arg-type]
    pulse.asked()
    assert wait(pulse, clock, 90).index(True) == 60  # it may be reading weights from a slow disk, or compiling


def test_a_device_is_judged_by_time_alone(pulse: Pulse, clock: Clock) -> None:
    pulse.reset(Process(0.0), computes_on_cpu=False)  # type: ignore[arg-type]
    pulse.heard(step(2048, 2.0), has_work=True)
    assert wait(pulse, clock, 20, num_tokens=2048).index(True) == 8


def test_an_abort_that_is_never_answered_counts(pulse: Pulse, clock: Clock) -> None:
    pulse.reset(Process(0.0))  # type: ignore[arg-type]
    pulse.heard(step(1, 0.01), has_work=False)
    pulse.asked()
    assert any(wait(pulse, clock, 10))


def test_a_delay_of_our_own_is_not_the_engines(pulse: Pulse, clock: Clock) -> None:
    pulse.reset(Process(0.0))  # type: ignore[arg-type]
    pulse.heard(step(1, 0.01), has_work=True)
    wait(pulse, clock, 1)
    clock.now += 3600  # this process was stopped: what the engine said meanwhile is still to be read
    assert not pulse.look(lambda: 1)
    assert pulse.silence < 5


def test_sizes_that_were_never_seen_are_judged_by_others() -> None:
    times = StepTimes()
    assert times.expected(1) is None
    times.add(64, 0.4)
    assert times.expected(1) == 0.4  # a larger step takes no less
    assert times.expected(2048) == pytest.approx(0.4 * 32)
    times.add(2048, 3.0)
    assert times.expected(2048) == 3.0
    for _ in range(200):
        times.add(64, 0.01)
    assert times.expected(64) == pytest.approx(0.01, rel=0.3)  # what was slow once is forgotten


def test_the_cpu_time_of_a_real_process() -> None:
    meter = CpuMeter(os.getpid())
    meter.share(time.monotonic())
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    assert meter.share(time.monotonic()) > 0.05
