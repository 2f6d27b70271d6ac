"""Saved runs are read back, and compared by what a drifting machine leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from isotoken.api.bench.compare import EXTRA_INFO, compare, load_results, unlike
from isotoken.api.bench.measure import turned
from isotoken.api.bench.results import Variant, load_report
from isotoken.api.bench.tables import change_table

from .made import ORT, TORCH, WRONG, report, result

BASE = [100.0, 102.0, 98.0]


def test_a_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "run.json"
    report().save(path)
    assert load_report(path) == report()
    assert load_results(path) == report().results


def test_results_of_pytest_benchmark_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    extras = [{EXTRA_INFO: msgspec.to_builtins(each)} for each in report().results]
    path.write_text(json.dumps({"benchmarks": [{"extra_info": extra} for extra in (*extras, {})]}))
    assert load_results(path) == report().results


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not JSON"), ("[]", "no report"), ("{}", "no report"), ('{"benchmarks": []}', "no result")],
)
def test_what_is_no_run_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"run.json.*{words}"):
        load_results(path)


def test_a_slower_machine_is_no_slower_engine() -> None:
    then = [result(TORCH, BASE, BASE, 200.0), result(ORT, [2 * rate for rate in BASE], BASE, 400.0)]
    half = [rate / 2 for rate in BASE]
    now = [result(TORCH, half, half, 100.0), result(ORT, BASE, half, 200.0)]
    changes = compare(then, now)
    assert [change.verdict for change in changes] == ["as before", "as before"]
    assert [change.rate for change in changes] == pytest.approx([0.5, 0.5])
    assert changes[0].against_first is None  # it is the first itself
    assert changes[1].against_first == pytest.approx(1.0)


def test_a_slower_engine_is_told_with_and_without_a_roof() -> None:
    for roof in (400.0, None):
        then = [result(TORCH, BASE, BASE, roof), result(ORT, [2 * rate for rate in BASE], BASE, roof)]
        now = [result(TORCH, BASE, BASE, roof), result(ORT, BASE, BASE, roof, workload="W1")]
        first, second = compare(then, now)
        assert (first.verdict, second.verdict) == ("as before", "SLOWER")
        assert compare(now, then)[1].verdict == "faster"


def test_a_change_within_the_noise_says_nothing() -> None:
    noisy = [60.0, 100.0, 140.0]
    (change,) = compare([result(TORCH, noisy, noisy)], [result(TORCH, [80.0] * 3, [80.0] * 3)])
    assert change.noise == pytest.approx(0.8)
    assert change.verdict == "as before"


@pytest.mark.parametrize(("rounds", "verdict"), [(1, "as before"), (3, "SLOWER")])
def test_a_single_round_hides_small_changes(rounds: int, verdict: str) -> None:
    then, now = ([result(TORCH, [rate] * rounds, [rate] * rounds)] for rate in (100.0, 90.0))
    assert [change.verdict for change in compare(then, now)] == [verdict]


def test_only_what_is_in_both_is_compared() -> None:
    now = [result(TORCH, BASE, BASE, workload="W2"), result(Variant("other"), BASE, BASE), result(TORCH, BASE, BASE)]
    assert [(c.workload, c.label) for c in compare(report().results, now)] == [("W1", "torch float32")]


def test_what_is_not_alike_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    report().save(path)
    assert unlike(path, report()) == []
    other = unlike(path, report(model="another", threads=1, share=4))
    assert other == [
        "model a <model> & more then, another now",
        "threads 2 then, 1 now",
        "part of the workloads 1/1 then, 1/4 now",
    ]
    assert "HARD TO COMPARE: model a" in change_table(compare(report().results, report().results), "x", other).note
    assert change_table([], "x").note == "no engine was measured on the same workload then and now"
    path.write_text('{"benchmarks": []}')
    assert unlike(path, report()) == []


def test_one_wrong_token_makes_a_report_wrong() -> None:
    assert report().ok
    assert not report(results=[result(TORCH, BASE, BASE, check=WRONG)]).ok


def test_figures_are_medians() -> None:
    first, second = report().results
    assert (first.rate, first.fraction, first.spread) == (100.0, 0.5, 0.2)
    assert second.ratio == pytest.approx(1.5)
    assert second.fraction is None
    assert report().drift == pytest.approx(4 / 42)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_engine_has_every_place(count: int) -> None:
    orders = [turned(range(count), by) for by in range(2 * count)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    for place in range(count):
        assert sorted(order[place] for order in orders) == sorted(list(range(count)) * 2)
