"""Open-loop traffic: requests come when they are due, times count from then, and the section is written in place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from isotoken.api.bench.engines import Run
from isotoken.plugins.manager import Plugins

from benchmarks.latency import COLOURS, Open, Point, Traffic, main, measure


def make_engine(tiny: Path, plugins: Plugins, scheduler: str) -> Open:
    settings = {"backend": "reference", "num_threads": 1, "num_blocks": 400}
    return Open(tiny, plugins, scheduler=scheduler, **settings)


def test_traffic_is_the_same_for_everyone_and_of_the_rate_asked_for() -> None:
    traffic = Traffic.draw(20.0, 50.0, 1)
    assert traffic == Traffic.draw(20.0, 50.0, 1) != Traffic.draw(20.0, 50.0, 2)
    assert traffic.due == sorted(traffic.due) and traffic.due[-1] < 50
    assert 800 < len(traffic.tasks) < 1200
    lengths = sorted(len(task.prompt) for task in traffic.tasks)
    assert 32 <= lengths[0] < lengths[len(lengths) // 4] < 128 and 900 < lengths[-1] <= 1024


def test_nobody_is_served_before_it_is_due(tiny: Path, plugins: Plugins) -> None:
    traffic = Traffic.draw(40.0, 0.2, 0, share=16)
    engine = make_engine(tiny, plugins, "adaptive")
    run = engine.run(traffic)
    engine.close()
    assert [len(tokens) for tokens in run.tokens] == [task.num_tokens for task in traffic.tasks]
    assert min(run.first_tokens()) > 0


def test_medians_over_rounds() -> None:
    runs = [Run(2.0 * slow, [[1, 2, 3]], [[slow, 2 * slow, 4 * slow]], [0.5 * slow]) for slow in (1.0, 3.0, 2.0)]
    point = Point.of("adaptive", 7.0, runs)
    assert (point.output_rate, point.gap50, point.first50) == (0.75, 3.0, 1.0)
    assert point.gap99 == pytest.approx(4.0, rel=0.01)


def test_other_tokens_give_no_figures(tiny: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = {name: make_engine(tiny, plugins, name) for name in COLOURS}
    points = measure(engines, [50.0], 1, 0.05, share=16)
    assert [(point.scheduler, point.rate) for point in points] == [(name, 50.0) for name in COLOURS]
    run = engines["adaptive"].run

    def wrong(traffic: Traffic) -> Run:
        found = run(traffic)
        found.tokens[0][-1] += 1
        return found

    monkeypatch.setattr(engines["adaptive"], "run", wrong)
    with pytest.raises(ValueError, match="tokens differ at 50 requests"):
        measure(engines, [50.0], 1, 0.05, share=16)
    for engine in engines.values():
        engine.close()


def test_a_section_and_a_chart_are_written_in_place(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOTOKEN_BENCH_CACHE", str(cache))
    (tmp_path / "benchmarks.md").write_text("# Benchmarks\n\nkept\n")
    command = ["--size", "tiny", "--backend", "reference", "--threads", "1", "--share", "16", "--rates", "20", "40"]
    command += ["--rounds", "1", "--seconds", "0.1", "--json", str(tmp_path / "run.json"), "--docs", str(tmp_path)]
    for _ in range(2):
        assert main(command) == 0
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.startswith("# Benchmarks\n\nkept\n") and page.count("## Latency against throughput") == 1
    assert page.count("| `adaptive` |") == page.count("| `continuous` |") == 2
    assert "adaptive, p99" in (tmp_path / "images" / "adaptive.svg").read_text()
    assert [point["rate"] for point in json.loads((tmp_path / "run.json").read_text())["points"]] == [20, 20, 40, 40]
