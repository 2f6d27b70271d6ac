"""The suite over a running server: it passes on a real one, and finds each bug by the numbers that it breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from isotoken.conformance.spec import http_behaviours

from ..api.conftest import write_model
from .http_bugs import BUGS
from .http_proxy import proxied


class Run(NamedTuple):
    """What a run of the suite came to."""

    status: int
    behaviours: dict[str, dict[str, Any]]
    said: str

    def failed(self) -> set[str]:
        return {number for number, found in self.behaviours.items() if found["outcome"] == "failed"}


def run(folder: Path, *arguments: str) -> Run:
    """Run `isotoken conformance` in a process of its own."""
    report = folder / "report.json"
    command = [sys.executable, "-P", "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())"]
    command += ["conformance", *arguments, "--report", str(report)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env = {**clean, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False)
    found = json.loads(report.read_text())["targets"][0]["behaviours"] if report.exists() else {}
    return Run(done.returncode, found, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def start(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    """Start a real server: a tiny model with random weights, on the numpy backend."""
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    return lambda: serve(str(folder), "--backend", "reference", "--log-level", "error", OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def served(start: Callable[[], Any]) -> Iterator[str]:
    with start() as server:
        yield server.url


@pytest.fixture(scope="module")
def proxy(served: str) -> Iterator[str]:
    with proxied(served, BUGS) as url:
        yield url


def test_a_real_server_passes(served: str, tmp_path: Path) -> None:
    found = run(tmp_path, "--url", served, "--strict", "-q", "--tb=short")
    assert found.status == 0, found.said[-5000:]
    assert {number: verdict["outcome"] for number, verdict in found.behaviours.items()} == dict.fromkeys(
        http_behaviours(), "passed"
    ), found.said[-5000:]


DEAF = "work-goes-on-for-those-who-left"  # found by a run that has the server to itself


@pytest.mark.slow
@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug != DEAF])
def test_a_bug_breaks_what_it_is_about(bug: str, proxy: str, tmp_path: Path) -> None:
    found = run(tmp_path, "--url", f"{proxy}/{bug}", "-q", "--tb=line")
    assert found.failed() == BUGS[bug].breaks, found.said[-6000:]
    assert found.status == (pytest.ExitCode.TESTS_FAILED if BUGS[bug].breaks else pytest.ExitCode.OK)


@pytest.mark.slow
def test_work_for_those_who_left_is_noticed(start: Callable[[], Any], tmp_path: Path) -> None:
    with start() as server, proxied(server.url, BUGS) as url:
        found = run(tmp_path, "--url", f"{url}/{DEAF}", "-q", "--tb=line", "-k", "test_load")
    assert found.failed() == BUGS[DEAF].breaks == {"HTTP-34"}, found.said[-5000:]


@pytest.mark.slow
def test_another_vendors_server(proxy: str, tmp_path: Path) -> None:
    """What isotoken promises beyond the common interface is not asked of others, unless strictly."""
    extensions = {number for number, sentence in http_behaviours().items() if sentence.startswith("(isotoken)")}
    lacking = {"HTTP-3", "HTTP-34", "HTTP-36", "HTTP-37", "HTTP-38", "HTTP-39"}
    found = run(tmp_path, "--url", f"{proxy}/another-vendor", "-q", "--tb=line")
    assert found.status == 0, found.said[-5000:]
    absent = {number for number, verdict in found.behaviours.items() if verdict["outcome"] == "absent"}
    assert absent == extensions | (lacking - {"HTTP-36"}), found.said[-5000:]
    assert found.behaviours["HTTP-36"]["reasons"] == [
        "no /tokenize, or no character of several tokens: there is nothing that could be broken"
    ]
    assert found.behaviours["HTTP-15"]["reasons"] == ["an extension of isotoken's; this is a server of somebody's"]
    strict = run(tmp_path, "--url", f"{proxy}/another-vendor", "-q", "--tb=line", "--strict")
    assert strict.failed() >= lacking, strict.said[-5000:]
    assert strict.behaviours["HTTP-15"]["outcome"] == "passed"


def test_every_behaviour_has_a_bug() -> None:
    assert set().union(*(bug.breaks for bug in BUGS.values())) == set(http_behaviours())
