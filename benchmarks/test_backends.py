"""Engines beside each other on the same workloads:

    python -m pytest benchmarks --backend torch --backend onnxruntime --dtype float32

Tokens are checked before anything is timed. All engines are loaded at once, and each round of an engine is preceded by
one of the first engine on the same prompts and by a measurement of the machine, so that ratios are those of neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import msgspec
import pytest
from isotoken.api.bench.checks import Check
from isotoken.api.bench.compare import EXTRA_INFO
from isotoken.api.bench.engines import Run
from isotoken.api.bench.measure import make_result
from isotoken.api.bench.results import Variant
from isotoken.api.bench.roof import Roof
from isotoken.api.bench.run import Plan, model_folder
from isotoken.api.bench.session import Bench
from isotoken.api.bench.workloads import ALL_WORKLOADS
from isotoken.plugins.manager import Plugins
from pytest_benchmark.fixture import BenchmarkFixture

from .conftest import RESULTS


@cache
def _plugins() -> Plugins:
    return Plugins.load()


def _variants(config: pytest.Config) -> list[Variant]:
    plan = Plan(
        model="",
        backends=config.getoption("--backend"),
        dtypes=config.getoption("--dtype"),
        quantizations=config.getoption("--quantization"),
        schedulers=config.getoption("--scheduler") or ("continuous",),
    )
    return plan.variants(_plugins())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "asked" in metafunc.fixturenames:
        metafunc.parametrize("name", metafunc.config.getoption("--workload") or ALL_WORKLOADS)
        metafunc.parametrize("asked", _variants(metafunc.config), ids=lambda variant: variant.label.replace(" ", "-"))


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Every engine, loaded."""
    config = request.config
    named = config.getoption("--bench-model")
    folder = model_folder(named) if named else request.getfixturevalue("bench_model")
    threads, share = config.getoption("--bench-threads"), config.getoption("--bench-share")
    with Bench(folder, plugins=_plugins(), threads=threads, share=share) as bench:
        bench.load(_variants(config))
        yield bench


@pytest.fixture(scope="module")
def checks() -> dict[tuple[str, Variant], Check]:
    """What was checked so far."""
    return {}


@pytest.mark.timeout(3600)
def test_workload(
    name: str,
    asked: Variant,
    bench: Bench,
    checks: dict[tuple[str, Variant], Check],
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
) -> None:
    if asked not in bench.settled:
        pytest.skip(next(reason for reason in bench.left_out if reason.startswith(asked.label)))
    variant, first = bench.settled[asked], next(iter(bench.engines))
    workload = bench.make_workload(name)
    for each in {first: None, variant: None}:
        if (name, each) not in checks:
            checks[name, each] = bench.check(each, workload)
    check = checks[name, variant]
    assert check.ok, f"{variant.label}, {name}: {check.text}"
    roofs: list[Roof] = []
    runs: list[Run] = []
    base: list[Run] = [] if variant != first else runs

    def setup() -> None:
        roofs.append(bench.measure_roof())
        if variant != first:
            base.append(bench.run(first, workload))

    benchmark.group = name
    rounds = request.config.getoption("--bench-rounds")
    benchmark.pedantic(lambda: runs.append(bench.run(variant, workload)), setup=setup, rounds=rounds)
    for run in runs:
        check = bench.hold(variant, workload, run, check)
    assert check.ok, f"{variant.label}, {name}: {check.text}"
    result = make_result(bench, workload, variant, runs, check, base=base, roof=Roof.best(roofs))
    benchmark.extra_info[EXTRA_INFO] = msgspec.to_builtins(result)
    benchmark.extra_info |= {"tok/s": result.rate, "ratio": result.ratio, "of the roof": result.fraction}
    benchmark.extra_info["roofs"] = msgspec.to_builtins(roofs)
    request.config.stash[RESULTS].append(result)
