"""The team of threads: it starts, sleeps, wakes, survives a fork, and ends."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from isotoken.kernels.cpu import library
from isotoken.kernels.cpu import program as p
from isotoken.kernels.cpu.team import Team, check_status

from .linears import Case, make_case, memory_for

TASKS = Path("/proc/self/task")


@pytest.fixture
def case() -> Case:
    return make_case(np.random.default_rng(0), (p.FORM_F32, p.FORM_F32), (5, 256, 64))


@pytest.fixture(params=[0, 50], ids=["sleeping", "spinning"])
def team(request: pytest.FixtureRequest) -> Iterator[Team]:
    with library.load().team(3, spin_us=request.param) as team:
        yield team


def run(team: Team, case: Case, times: int = 1) -> np.ndarray:
    prepared = team.prepare([case.op] * times)
    case.out[:] = 0
    prepared(p.Step(num_tokens=5))
    return case.out.copy()


def test_many_short_runs(team: Team, case: Case) -> None:
    """Threads that are about to sleep miss no work: a lost wake-up would stop here for ever."""
    expected = run(team, case)
    prepared = team.prepare([case.op])
    step = p.Step(num_tokens=5)
    for _ in range(2000):
        prepared(step)
    np.testing.assert_array_equal(case.out, expected)


def test_each_thread_works_and_more_than_there_is_work_do_no_harm(case: Case) -> None:
    results = []
    for num_threads in (1, 2, 7):
        with library.load().team(num_threads) as team:
            results.append(run(team, case))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert results[0].any()


@pytest.mark.skipif(not TASKS.exists(), reason="needs /proc to count threads")
def test_closing_ends_the_threads(case: Case) -> None:
    before = len(list(TASKS.iterdir()))
    team = library.load().team(4)
    assert len(list(TASKS.iterdir())) == before + 3
    run(team, case)
    team.close()
    team.close()
    assert len(list(TASKS.iterdir())) == before
    with pytest.raises(ValueError, match="closed"):
        team.prepare([case.op])(p.Step(num_tokens=5))


def test_a_fork_gets_threads_of_its_own(team: Team, case: Case) -> None:
    expected = run(team, case)
    child = os.fork()
    if not child:  # only what cannot fail noisily: exit codes speak
        right = np.array_equal(run(team, case), expected)
        team.close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(run(team, case), expected)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be pinned here")
def test_a_fork_of_a_pinned_caller_is_let_go_too(case: Case) -> None:
    mine = os.sched_getaffinity(0)
    with library.load().team(2, cpus=[min(mine)] * 2) as team:
        child = os.fork()
        if not child:
            run(team, case)
            team.close()
            os._exit(0 if os.sched_getaffinity(0) == mine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are Linux's")
def test_a_fork_that_gets_no_threads_is_told_so(team: Team, case: Case) -> None:
    """An exception of C++ would end the process."""
    expected = run(team, case)
    child = os.fork()
    if not child:
        if os.geteuid() == 0:
            os.setuid(65534)  # root has no such limit
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        try:
            run(team, case)
        except OSError:
            team.close()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(run(team, case), expected)


def test_what_the_kernels_do_not_have_is_told_apart_from_memory(team: Team, case: Case) -> None:
    heads = p.Heads(cache=p.Cache(head_dim=p.MAX_HEAD_DIM + 1))
    attention = p.Attention(cache=p.Cache(head_dim=p.MAX_HEAD_DIM + 1))
    for operation in (heads, attention):
        with pytest.raises(ValueError, match="head_dim above 1024"):
            team.prepare([operation])(p.Step())
    unknown = p.Heads(cache=p.Cache(head_dim=64))
    unknown.head.kind = 9
    with pytest.raises(ValueError, match="no such operation"):
        team.prepare([unknown])(p.Step())
    with pytest.raises(ValueError, match="no such operation or form"):
        matrix = np.zeros((32, 32), np.float32)
        values, scales, _ = memory_for(p.FORM_I8_GROUPS, 32, 32, 32)
        weights = p.Weights(values=values, scales=scales, form=p.FORM_I8_SUMMED, outputs=32, inputs=32, group=32)
        check_status(
            team._functions.isotoken_pack(
                team.handle, matrix.ctypes.data, p.FORM_F32, 32, None, ctypes.addressof(weights)
            )
        )


def test_each_team_keeps_its_instruction_set(case: Case) -> None:
    """Sums of single precision lie otherwise in another set's order: what a later team chooses changes nothing here."""
    case = make_case(np.random.default_rng(0), (p.FORM_BF16, p.FORM_BF16), (5, 64, 2048))
    isas = library.load().isas
    alone = {}
    for isa in isas:
        with library.load(isa).team(1) as only:
            alone[isa] = run(only, case)
    teams = {isa: library.load(isa).team(1) for isa in isas}
    for isa, each in teams.items():
        np.testing.assert_array_equal(run(each, case), alone[isa])
    for each in teams.values():
        each.close()
    if len(isas) > 1:
        assert not np.array_equal(alone[isas[0]], alone["plain"])


def test_a_fork_may_leave_the_team_alone(team: Team, case: Case) -> None:
    run(team, case)
    child = os.fork()
    if not child:
        team.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_other_python_threads_run_meanwhile(team: Team, case: Case) -> None:
    """A run holds no lock of Python's."""
    seen = threading.Event()
    threading.Thread(target=seen.set).start()
    run(team, case, times=50)
    assert seen.wait(60)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be pinned here")
def test_threads_are_pinned(case: Case) -> None:
    mine = os.sched_getaffinity(0)
    first, last = min(mine), max(mine)
    with library.load().team(2, cpus=[first, first]) as team:
        run(team, case)
        assert os.sched_getaffinity(0) == {first}, "the caller is the first of the team"
        with library.load().team(2, cpus=[last, last]):
            assert os.sched_getaffinity(0) == {last}
    assert os.sched_getaffinity(0) == mine, "the last of them lets the caller go"
    one, other = (library.load().team(1, cpus=[cpu]) for cpu in (first, last))
    one.close()
    assert os.sched_getaffinity(0) == {last}, "a team that lives keeps its caller"
    other.close()
    assert os.sched_getaffinity(0) == mine
    with pytest.raises(ValueError, match="name one for each"):
        library.load().team(2, cpus=[first])


def test_a_profile_has_a_time_for_each_operation(team: Team, case: Case) -> None:
    prepared = team.prepare([case.op, case.op])
    prepared.profile(True)
    for _ in range(3):
        prepared(p.Step(num_tokens=5))
    seconds = prepared.profile(False)
    assert len(seconds) == 2
    assert all(each > 0 for each in seconds)
    prepared(p.Step(num_tokens=5))
    assert prepared.profile(False) == [0, 0], "it is off"
