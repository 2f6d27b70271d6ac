"""`python -m benchmarks.fuzz`: fuzz a server with everything on, and write what came of it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .protocol import fuzz_protocol
from .schema import fuzz_routes
from .server import serving

CHANGES_MODELS = "^/admin/models/"  # after which other routes have every reason to say 503: these come last
REPORT = Path(__file__).parents[2] / "docs" / "security" / "fuzz.json"


def main() -> int:
    """Fuzz; return 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for the routes; as much again at most for bytes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=REPORT, help="a .json file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        report = fuzz(Path(name), minutes=given.minutes, seed=given.seed)
        if failed(report):
            print((Path(name) / "server.log").read_text()[-20_000:], file=sys.stderr)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(report, indent=2) + "\n")
    print(summary(report))
    return 1 if failed(report) else 0


def fuzz(
    folder: Path,
    *,
    seed: int,
    minutes: float | None = None,
    max_examples: int = 100_000,
    phases: str = "coverage,fuzzing",
) -> dict[str, Any]:
    """Return the report of one run: for so many minutes, or without them of so many requests of each kind."""
    started = time.monotonic()
    seconds = None if minutes is None else round(minutes * 60)
    with serving(folder) as target:
        address = urlsplit(target.url)
        assert address.hostname is not None
        assert address.port is not None
        common: dict[str, Any] = {"seed": seed, "headers": (f"Authorization: Bearer {target.key}",), "phases": phases}
        routes = fuzz_routes(
            target.url, folder, max_examples=max_examples, seconds=seconds, exclude=CHANGES_MODELS, **common
        )
        protocol = fuzz_protocol(
            address.hostname,
            address.port,
            count=10 * max_examples,
            seconds=(seconds or 60) / 2,
            seed=seed,
            key=target.key,
        )
        healthy = _is_healthy(target.url)
        last = fuzz_routes(target.url, folder, max_examples=min(50, max_examples), include=CHANGES_MODELS, **common)
        alive = target.process.poll() is None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - started),
        "routes": {name: value for name, value in asdict(routes.and_those_of(last)).items() if name != "output"},
        "protocol": {**asdict(protocol), "statuses": dict(sorted(protocol.statuses.items()))},
        "healthy_afterwards": healthy and alive,
        "exit_code": target.process.returncode,
        "internal_errors_logged": (folder / "server.log").read_text().count("internal error"),
    }


def failed(report: dict[str, Any]) -> bool:
    """Whether there is anything to look into."""
    failures = report["routes"]["failures"] or report["protocol"]["failures"] or report["internal_errors_logged"]
    return bool(failures) or not report["healthy_afterwards"] or report["exit_code"] != 0


def summary(report: dict[str, Any]) -> str:
    """Return the report in some lines."""
    routes, protocol = report["routes"], report["protocol"]
    lines = [
        f"{routes['cases']} requests to {routes['operations']} routes: {len(routes['failures'])} failures",
        f"{protocol['sent']} damaged HTTP requests: {len(protocol['failures'])} failures; {protocol['statuses']}",
        f"healthy afterwards: {report['healthy_afterwards']}; exit code {report['exit_code']}; "
        f"internal errors logged: {report['internal_errors_logged']}",
        *(json.dumps(failure)[:1000] for failure in [*routes["failures"], *protocol["failures"]]),
    ]
    return "\n".join(lines)


def _is_healthy(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/health", timeout=30) as response:
        return bool(response.status == 200)


if __name__ == "__main__":
    sys.exit(main())
