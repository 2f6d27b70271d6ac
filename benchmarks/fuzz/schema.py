"""Every route by its own OpenAPI schema, with schemathesis: valid requests, and requests that break the schema."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKS = ("not_a_server_error", "unsupported_method")
RESPONSE_TIMEOUT = 30.0  # seconds that an answer may take: more is a hang


@dataclass(slots=True)
class Routes:
    """What came of it."""

    seed: int
    operations: int = 0
    cases: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    accepted: dict[str, dict[str, int]] = field(default_factory=dict)  # by route
    output: str = ""  # of schemathesis, for people

    def and_those_of(self, other: Routes) -> Routes:
        """Return both together."""
        return Routes(
            seed=self.seed,
            operations=self.operations + other.operations,
            cases=self.cases + other.cases,
            failures=self.failures + other.failures,
            accepted=dict(sorted({**self.accepted, **other.accepted}.items())),
            output=self.output + other.output,
        )


def fuzz_routes(
    url: str,
    folder: Path,
    *,
    seed: int,
    max_examples: int,
    seconds: int | None = None,
    headers: tuple[str, ...] = (),
    include: str = "",
    exclude: str = "",
    phases: str = "coverage,fuzzing",
) -> Routes:
    """Send up to so many requests to each route, of each kind. The report is left in the folder."""
    report = folder / "schemathesis.json"
    command = [
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis as run; run()"),
        *("run", f"{url}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--phases", phases, "--mode", "all", "--continue-on-failure"),
        *("--max-examples", str(max_examples), "--seed", str(seed), "--no-shrink", "--workers", "2"),
        *("--request-timeout", str(RESPONSE_TIMEOUT), "--suppress-health-check", "all", "--warnings", "off"),
        *("--report", "json", "--report-json-path", str(report)),
        *(part for header in headers for part in ("--header", header)),
        *(("--include-path-regex", include) if include else ()),
        *(("--exclude-path-regex", exclude) if exclude else ()),
        *(("--max-time", str(seconds)) if seconds else ()),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not report.exists():
        raise RuntimeError(f"schemathesis ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return _read(json.loads(report.read_text()), seed, done.stdout)


def _read(report: dict[str, Any], seed: int, output: str) -> Routes:
    """Take what matters out of schemathesis' report."""
    return Routes(
        seed=seed,
        operations=report["operations"]["tested"],
        cases=report["test_cases"]["generated"],
        failures=[*report["failures"], *report["errors"]],
        accepted={name: _accepted(phases) for name, phases in sorted(report["valid_rates"].items())},
        output=output,
    )


def _accepted(phases: dict[str, dict[str, int]]) -> dict[str, int]:
    """Add the phases up: how many requests were taken, and how many were refused."""
    kinds = ("accepted", "rejected")
    return {kind: sum(phase[kind] for phase in phases.values()) for kind in kinds}
