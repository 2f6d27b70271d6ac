"""Options of the benchmarks, and the summary of what was compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from isotoken.api.bench.compare import compare, load_results
from isotoken.api.bench.machine import machine_facts, num_cpus, versions
from isotoken.api.bench.models import ensure_model
from isotoken.api.bench.results import Result
from isotoken.api.bench.tables import Table, change_table, rich_table, workload_tables
from isotoken.api.bench.workloads import ALL_WORKLOADS

RESULTS = pytest.StashKey[list[Result]]()
COMPARED = "test_backends.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("isotoken benchmarks")
    for name, text in {
        "backend": "backend to compare; the first is what ratios are to (default: all installed but the reference)",
        "dtype": "compute dtype, or NAME:DTYPE for one backend (default: auto)",
        "quantization": "of the weights: int8, none, or NAME:int8 for one backend (default: none)",
        "scheduler": "scheduler (default: continuous)",
    }.items():
        group.addoption(f"--{name}", action="append", default=[], help=f"{text}; may be repeated")
    group.addoption(
        "--workload", action="append", choices=ALL_WORKLOADS, help="W1, ...; may be repeated (default: all)"
    )
    group.addoption("--bench-compare", metavar="FILE", help="a saved run (--benchmark-json): what changed since")
    group.addoption("--bench-cache", metavar="DIR", help="where random models are kept")
    group.addoption("--bench-size", default="125m", help="random model: 125m, 500m or tiny")
    group.addoption("--bench-model", help="measure this model instead: as for isotoken serve")
    group.addoption("--bench-rounds", type=int, default=3, help="measured rounds of each workload")
    group.addoption("--bench-share", type=int, default=1, help="cut workloads down to a part, for a quick look")
    group.addoption("--bench-threads", type=int, default=num_cpus(), help="CPU threads for everyone")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --backend nothing but the comparison runs, unless it was named."""
    asked = config.getoption("--backend") and collection_path.name.startswith("test_")
    named = any(str(arg).split("::")[0].endswith(collection_path.name) for arg in config.args)
    return True if asked and collection_path.name != COMPARED and not named else None


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []


@pytest.fixture(scope="session")
def bench_model(request: pytest.FixtureRequest) -> Path:
    """The folder of the random model."""
    cache = request.config.getoption("--bench-cache")
    return ensure_model(request.config.getoption("--bench-size"), Path(cache) if cache else None)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["isotoken"] = {"machine": machine_facts(), "versions": versions()}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was compared, and what changed since a saved run."""
    results = config.stash[RESULTS]
    if not results:
        return
    tables: list[Table] = workload_tables(results)
    if saved := config.getoption("--bench-compare"):
        tables.append(change_table(compare(load_results(Path(saved)), results), saved))
    from rich.console import Console  # noqa: PLC0415

    console = Console(file=terminalreporter._tw._file, width=160, highlight=False)
    terminalreporter.section("engines compared, tokens checked")
    for table in tables:
        console.print(rich_table(table), "")
