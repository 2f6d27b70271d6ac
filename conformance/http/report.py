"""Gather a run's results for every behaviour of a server, say them in a few lines, write them as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .. import SUITE_VERSION
from ..report import PROPERTY, outcome_of, verdict_of, version_of_isotoken
from ..spec import http_behaviours
from .server import Server
from .settings import Settings

_STYLES: dict[str, tuple[str, dict[str, bool]]] = {
    "passed": ("✓", {"green": True}),
    "failed": ("✗", {"red": True, "bold": True}),
    "absent": ("–", {"yellow": True}),
}


class Collector:
    """Listens to the reports of tests."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings = settings
        self._facts = server.facts
        self._outcomes: dict[str, list[tuple[str, str]]] = {}
        self._numbers = {"compared": 0, "near_ties": 0}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one test's outcome under each behaviour that it cites."""
        for text in [value for name, value in report.user_properties if name == PROPERTY]:
            if report.when != "call" and report.outcome == "passed":
                continue
            found = json.loads(str(text))
            for number in found["spec"]:
                self._outcomes.setdefault(number, []).append(outcome_of(report))
            for name in self._numbers:
                self._numbers[name] += found[name] if report.when == "call" else 0

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        if self._settings.report:
            Path(self._settings.report).write_text(json.dumps(self.as_json(), indent=1) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say for each behaviour what was found."""
        found, sentences = self._behaviours(), http_behaviours()
        terminalreporter.section(f"isotoken conformance {SUITE_VERSION} over {self._settings.url}")
        length = "" if self._facts.max_model_len is None else f", context of {self._facts.max_model_len} tokens"
        terminalreporter.write_line(f"model {self._facts.model}, server of {self._facts.owned_by}'s{length}")
        for number, verdict in found.items():
            if verdict["outcome"] in _STYLES:
                mark, style = _STYLES[verdict["outcome"]]
                reasons = "; ".join(verdict.get("reasons", ()))
                partly = " partly" if verdict["outcome"] == "passed" and reasons else ""
                line = f"{mark} {number:8}{sentences[number]}" + (f" [absent{partly}: {reasons}]" if reasons else "")
                terminalreporter.write_line(line, **style)
        words = [verdict["outcome"] for verdict in found.values()]
        counts = [f"{words.count(word)} {word}" for word in ("failed", "passed", "absent", "not run") if word in words]
        terminalreporter.write_line(f"{', '.join(counts)}; {self._told_numbers()}")

    def _told_numbers(self) -> str:
        compared, ties = self._numbers["compared"], self._numbers["near_ties"]
        within = f" within {self._facts.near_tie:g}" if self._facts.near_tie else ""
        return f"texts compared: {compared}; near-ties{within} that fell otherwise: {ties}"

    def as_json(self) -> dict[str, Any]:
        """The report, in the shape of those on backends."""
        target = {
            "kind": "server",
            "target": f"{self._facts.owned_by} {self._facts.model}",
            "url": self._settings.url,
            "model": self._facts.model,
            "owned_by": self._facts.owned_by,
            "max_model_len": self._facts.max_model_len,
            "strict": self._settings.strict,
            "near_tie": self._facts.near_tie,
            "absences": {},
            "numbers": self._numbers,
            "behaviours": self._behaviours(),
        }
        return {"suite_version": SUITE_VERSION, "isotoken_version": version_of_isotoken(), "targets": [target]}

    def _behaviours(self) -> dict[str, dict[str, Any]]:
        return {number: verdict_of(self._outcomes.get(number, [])) for number in http_behaviours()}
