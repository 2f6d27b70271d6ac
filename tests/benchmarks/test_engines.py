"""How a workload is run: all at once or a few at a time, nothing kept from run to run, times as they are meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from isotoken.api.bench.engines import Isotoken, Run, speed, token_hash
from isotoken.api.bench.workloads import ALL_WORKLOADS, LONGEST, make_streams, make_workload, shorter, small
from isotoken.plugins.manager import Plugins


def subject(tiny: Path, plugins: Plugins, scheduler: str = "continuous") -> Isotoken:
    return Isotoken(tiny, "float32", scheduler=scheduler, settings={"num_threads": 1}, plugins=plugins)


@pytest.mark.parametrize("scheduler", ["continuous", "adaptive", "static", "naive"])
def test_no_more_requests_are_under_way_than_streams(tiny: Path, plugins: Plugins, scheduler: str) -> None:
    workload = shorter(make_streams(3, per_stream=3), 8)
    engine = subject(tiny, plugins, scheduler)
    run = engine.run(workload, in_flight=3)
    at_once = engine.run(workload)
    engine.close()
    assert run.tokens == at_once.tokens
    assert [len(tokens) for tokens in run.tokens] == [task.num_tokens for task in workload.tasks]
    ends = [times[-1] for times in run.token_times]
    for start in run.starts:
        under_way = sum(other <= start < end for other, end in zip(run.starts, ends, strict=True))
        assert 1 <= under_way <= 3
    assert max(at_once.starts) < min(times[0] for times in at_once.token_times)


def test_another_salt_shares_nothing_and_changes_nothing(tiny: Path, plugins: Plugins) -> None:
    workload = small(make_workload("W4"), 4)
    engine = subject(tiny, plugins)
    runs, cached = [], []
    for salt in (b"1", b"1", b"2"):
        runs.append(engine.run(workload, salt=salt))
        cached.append(sum(o.num_cached_tokens for _, outputs in engine._outputs for o in outputs if o.finish_reason))
    engine.close()
    assert len({token_hash(run) for run in runs}) == 1
    assert cached[0] == cached[2] < cached[1]  # the shared prefix is found within a run, the rest in a second one only


def test_a_task_alone_gives_its_tokens_and_margins(tiny: Path, plugins: Plugins) -> None:
    workload = small(make_workload("W2"), 8)
    engine = subject(tiny, plugins)
    together = engine.run(workload)
    tokens, margins = engine.run_alone(workload.tasks[2])
    engine.close()
    assert tokens == together.tokens[2]
    assert len(margins) == len(tokens)
    assert min(margins) > 0


def test_tokens_that_come_together_share_the_wait() -> None:
    run = Run(2.0, [[1, 2, 3, 4], [5]], [[0.5, 1.0, 1.0, 2.0], [0.25]], [0.25, 0.0])
    assert run.gaps() == [0.25, 0.25, 1.0]
    assert run.first_tokens() == [0.25, 0.25]
    assert run.output_rate == 2.5


def test_speed_is_the_figure_that_the_workload_is_about() -> None:
    run = Run(4.0, [[1, 2, 3]], [[1.0, 1.5, 2.0]])
    w1, w2, prefill = (make_workload(name) for name in ("W1", "W2", "prefill"))
    assert (speed(w1, run), speed(w2, run), speed(prefill, run)) == (2.0, 0.75, 512.0)


@pytest.mark.parametrize("name", ALL_WORKLOADS)
def test_workloads_are_the_same_for_everyone(name: str) -> None:
    workload = make_workload(name, vocab_size=100)
    assert workload == make_workload(name, vocab_size=100)
    assert workload.tasks[0].prompt != make_workload(name, 1, vocab_size=100).tasks[0].prompt
    assert all(3 <= token < 100 for task in workload.tasks for token in task.prompt)
    assert max(len(task.prompt) + task.num_tokens for task in workload.tasks) <= LONGEST
    shared = 31 * 512 if name == "W4" else 0
    assert workload.num_distinct_prompt_tokens == workload.num_prompt_tokens - shared


def test_fewer_streams_ask_for_the_first_of_the_same() -> None:
    assert make_streams(4).tasks == make_streams(16).tasks[:8]
    assert len(make_streams(16).tasks) == 32
