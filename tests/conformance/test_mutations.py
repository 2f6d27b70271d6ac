"""The test of the tests: with each of these bugs switched on, the suite must fail; with none, it passes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from .mutations import BUGS, MUTATIONS, Mutation
from .suite import run_suite

Result = subprocess.CompletedProcess[str]
QUICK = ("-x", "-q", "--no-header", "--tb=line", "--dtype", "float64")


def _mutated(mutation: Mutation, folder: Path) -> Result:
    fields = {k: v for k, v in asdict(mutation).items() if k in ("module", "find", "replace")}
    return run_suite(
        *("-p", "isotoken_mutant", "--backend", "reference", "-k", mutation.tests, *QUICK),
        cwd=folder,
        ISOTOKEN_MUTATION=json.dumps(fields),
    )


def _buggy(bug: str, folder: Path) -> Result:
    return run_suite("--backend", "fixture", "-k", BUGS[bug], *QUICK, cwd=folder, ISOTOKEN_FIXTURE_BUG=bug)


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Result]]]:
    """Every selected run, two at a time, begun before the first is asked for."""
    folder = tmp_path_factory.mktemp("elsewhere")
    wanted = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        futures = {m.name: pool.submit(_mutated, m, folder) for m in MUTATIONS if m.name in wanted}
        futures |= {bug: pool.submit(_buggy, bug, folder) for bug in BUGS if bug in wanted}
        yield futures
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", [*(m.name for m in MUTATIONS), *BUGS])
def test_caught(name: str, results: dict[str, Future[Result]]) -> None:
    result = results[name].result()
    told = f"{result.stdout[-3000:]}\n{result.stderr[-2000:]}"
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, f"not caught:\n{told}"
    assert " failed" in result.stdout, result.stdout[-3000:]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutations_still_apply(mutation: Mutation) -> None:
    """The text that a mutation replaces stands in its module exactly once."""
    found = find_spec(mutation.module)
    assert found is not None and found.origin is not None
    count = Path(found.origin).read_text().count(mutation.find)
    assert count == 1, f"{mutation.module} holds it {count} times: {mutation.find}"


def test_without_bugs_the_same_tests_pass(tmp_path: Path) -> None:
    """Otherwise the others prove nothing; for `reference`, test_backends.py runs the whole suite."""
    result = run_suite("--backend", "fixture", "-k", " or ".join(sorted(set(BUGS.values()))), *QUICK[1:], cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.OK, result.stdout[-5000:]
