"""Collect a run's results for every target and behaviour, print a summary, write them as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

import pytest

from ..core.capabilities import Aspect, Unavailable
from ..core.interfaces import Backend
from ..plugins.manager import Plugins
from . import SUITE_VERSION
from .judge import Tally
from .spec import behaviours
from .targets import Target

PROPERTY = "isotoken_conformance"
_WORST_FIRST = ("failed", "excluded", "passed", "absent")
_ABSENT = "declared absent: "


def describe(target: Target, backend: Backend, plugins: Plugins) -> dict[str, Any]:
    """Say what a target is and what its backend declares, as JSON values."""
    can = backend.capabilities
    declared = {f.name: getattr(can, f.name) for f in fields(can)}
    absences = {name: asdict(value) for name, value in declared.items() if isinstance(value, Unavailable)}
    some = can.invariant_to if target.exact else frozenset[str]()
    names = {name: sorted(value) for name, value in declared.items() if isinstance(value, frozenset)}
    return {
        "target": str(target),
        "backend": target.backend,
        "distribution": plugins.backends[target.backend].distribution,
        "dtype": target.dtype,
        "quantization": target.quantization,
        "device": target.device,
        "options": dict(target.options),
        "bound": target.precision.bound,
        "declared": names | {"max_tensor_parallel_size": can.max_tensor_parallel_size},
        "promised": sorted(get_args(Aspect) if can.batch_invariant else some),
        "absences": absences,
    }


class Collector:
    """Listens to the reports of tests, in the process that talks to the user."""

    def __init__(self, described: list[dict[str, Any]], path: str | None) -> None:
        self._described = {d["target"]: d for d in described}
        self._path = path
        self._tallies = {name: Tally() for name in self._described}
        self._outcomes: dict[str, dict[str, list[tuple[str, str]]]] = {name: {} for name in self._described}
        self.problems: list[str] = []  # what fails the run besides failing tests
        self.excluded: dict[str, set[str]] = {}  # what an exclusion covers, by name
        self._absent: set[str] = set()  # node ids

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one test's outcome under each behaviour that it cites."""
        for text in [value for name, value in report.user_properties if name == PROPERTY]:
            if report.when != "call" and report.outcome == "passed":
                continue
            found = json.loads(str(text))
            outcome, reason = outcome_of(report)
            if outcome == "absent":
                self._absent.add(report.nodeid)
                self._note_model(found["target"], reason)
            if report.when == "call":
                self._tallies[found["target"]].add(Tally(**found["tally"]))
            for number in found["spec"]:
                self._outcomes[found["target"]].setdefault(number, []).append((outcome, reason))

    def _note_model(self, target: str, reason: str) -> None:
        """A model that the backend refuses is an absence like those of its capabilities."""
        if reason.startswith("model "):
            model, _, why = reason.partition(": ")
            self._described[target]["absences"][model] = {"kind": "refused", "reason": why, "issue": ""}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the report; fail the run for exclusions that match nothing."""
        if hasattr(session.config, "workerinput"):
            return
        for name, covered in self.excluded.items():
            if covered and covered <= self._absent:
                self.problems.append(f"{name} covers only tests that never ran, being declared absent: remove it")
        if self.problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._path:
            Path(self._path).write_text(json.dumps(self.as_json(), indent=1) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say in a few lines what was found."""
        write = terminalreporter.write_line
        terminalreporter.section(f"isotoken conformance {SUITE_VERSION}")
        for name, tally in self._tallies.items():
            write(_numbers(name, tally, self._behaviours(name)))
            for capability, why in self._described[name]["absences"].items():
                write(f"  declared absent: {capability} ({why['kind']}: {why['reason']}) {why['issue']}".rstrip())
        for problem in self.problems:
            terminalreporter.write_line(f"ERROR {problem}", red=True)

    def as_json(self) -> dict[str, Any]:
        """The report."""
        targets = [
            described
            | {
                "numbers": {key: value for key, value in asdict(tally).items() if key != "differences"},
                "invariance": {aspect: _aspect(aspect, described, tally) for aspect in get_args(Aspect)},
                "behaviours": self._behaviours(name),
            }
            for (name, described), tally in zip(self._described.items(), self._tallies.values(), strict=True)
        ]
        return {"suite_version": SUITE_VERSION, "isotoken_version": version_of_isotoken(), "targets": targets}

    def _behaviours(self, target: str) -> dict[str, dict[str, Any]]:
        return {number: verdict_of(self._outcomes[target].get(number, [])) for number in behaviours()}


def outcome_of(report: pytest.TestReport) -> tuple[str, str]:
    """Say in one word how a test ended, with the reason where it did not run or was known to fail."""
    if hasattr(report, "wasxfail") and report.skipped:
        return "excluded", str(report.wasxfail)
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return "absent", reason.removeprefix("Skipped: ").removeprefix(_ABSENT)
    return report.outcome, ""


def verdict_of(outcomes: list[tuple[str, str]]) -> dict[str, Any]:
    """One word for all tests of a behaviour, the worst that was said of any, and the reasons for what did not pass."""
    words = [word for word, _ in outcomes]
    worst = next((word for word in _WORST_FIRST if word in words), "not run")
    verdict: dict[str, Any] = {"outcome": worst, "tests": len(words)}
    if reasons := sorted({reason for _, reason in outcomes if reason}):
        verdict["reasons"] = reasons
    return verdict


def _aspect(aspect: str, described: Mapping[str, Any], tally: Tally) -> dict[str, Any]:
    """Whether bits are declared not to depend on an aspect, and by how much they did (null: not measured)."""
    return {"declared": aspect in described["promised"], "largest_difference": tally.differences.get(aspect)}


def _numbers(name: str, tally: Tally, found: Mapping[str, Mapping[str, Any]]) -> str:
    words = [entry["outcome"] for entry in found.values()]
    counts = ", ".join(f"{words.count(word)} {word}" for word in (*_WORST_FIRST, "not run") if word in words)
    return (
        f"{name}: {counts}; {tally.decided} positions decided, {tally.near_ties} near-ties "
        f"({tally.flips} fell otherwise), largest logits error {tally.max_logits_error:.2g} of the row's maximum"
    )


def version_of_isotoken() -> str:
    """Return the installed version."""
    try:
        return version("isotoken")
    except PackageNotFoundError:
        return "0+unknown"
