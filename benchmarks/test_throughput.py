"""Throughput beside transformers' generate, interleaved in one process, tokens checked first.

    python -m pytest benchmarks/test_throughput.py -s

Each round runs transformers and then isotoken on the same fresh prompts; what counts is the median of the ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from isotoken.api.bench.engines import token_hash
from isotoken.api.bench.roof import Model, Roof, RoofMeter
from isotoken.api.bench.workloads import WORKLOADS, Workload, make_workload, small
from pytest_benchmark.fixture import BenchmarkFixture

from .checks import check_float32, judge
from .engines import Isotoken, Run, Transformers, speed

LEAST = {"W1": 1.0, "W2": 1.0, "W3": 3.0, "W4": 1.0}
"""How many times transformers' speed must be reached on the 125m model."""


@pytest.fixture(scope="module")
def oracle(bench_model: Path, request: pytest.FixtureRequest) -> Transformers:
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    return Transformers(bench_model, "float32")


@pytest.fixture(scope="module")
def peer(bench_model: Path) -> Transformers:
    return Transformers(bench_model, "bfloat16")


@pytest.fixture(scope="module")
def subject(bench_model: Path, oracle: Transformers) -> Iterator[Isotoken]:
    """Our engine in bfloat16, after it gave transformers' tokens in float32."""
    exact = Isotoken(bench_model, "float32")
    check_float32(exact, oracle, small(make_workload("W3", 0), 8))
    exact.close()
    engine = Isotoken(bench_model, "bfloat16", settings={"max_num_seqs": 64})  # the default, and all of W3
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def meter(bench_model: Path, request: pytest.FixtureRequest) -> Iterator[RoofMeter]:
    """The machine, measured beside both."""
    threads = request.config.getoption("--bench-threads")
    with RoofMeter(Model.of(bench_model).num_bytes, ["bfloat16"], threads=threads) as meter:
        yield meter


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WORKLOADS)
def test_throughput(
    name: str,
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    bench_model: Path,
    subject: Isotoken,
    peer: Transformers,
    oracle: Transformers,
    meter: RoofMeter,
) -> None:
    roofs: list[Roof] = []
    ours: list[float] = []
    theirs: list[float] = []
    runs: list[tuple[Workload, Run]] = []

    def setup() -> tuple[tuple[Workload], dict[str, object]]:
        workload = make_workload(name, len(theirs))
        theirs.append(speed(workload, peer.run(workload)))
        roofs.append(meter.measure())
        return (workload,), {}

    def measure(workload: Workload) -> None:
        run = subject.run(workload)
        ours.append(speed(workload, run))
        runs.append((workload, run))

    rounds = request.config.getoption("--bench-rounds")
    benchmark.pedantic(measure, setup=setup, rounds=rounds, warmup_rounds=1)
    workload, run = runs[-1]
    verdict = judge(oracle, workload, run, "bfloat16")
    assert verdict.ok, f"{name}: tokens that rounding cannot explain: {verdict}"
    ratios = [mine / other for mine, other in zip(ours[1:], theirs[1:], strict=True)]  # the first is the warm-up
    best_possible = Model.of(bench_model).roof_rate(workload, Roof.best(roofs), "bfloat16")
    assert best_possible is not None
    ratio = statistics.median(ratios)
    figures = {
        "isotoken_tok_s": statistics.median(ours[1:]),
        "transformers_tok_s": statistics.median(theirs[1:]),
        "ratio": ratio,
        "ratios": ratios,
        "fraction_of_roof": statistics.median(ours[1:]) / best_possible,
        "roof": "memory" if name == "W1" else "arithmetic",
        "tokens": token_hash(run),
        "near_ties": f"{verdict.near_ties} of {verdict.positions}, {verdict.differing} fell otherwise",
    }
    benchmark.extra_info.update(figures)
    print(f"\n{name}: " + ", ".join(f"{key} {_text(value)}" for key, value in figures.items()))
    if request.config.getoption("--bench-size") == "125m":
        assert ratio >= LEAST[name]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return "[" + " ".join(map(_text, value)) + "]" if isinstance(value, list) else str(value)
