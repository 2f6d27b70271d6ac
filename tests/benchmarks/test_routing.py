"""The table of what routing saves: worked out from answers, and once from real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.routing import Answer, main, rows

EASY, HARD = ("fact", "Who wrote Faust?", "a"), ("count", "Explain, count and spell the 17 words of 1 2 3 4 5 6", "b")


def test_strategies_are_worked_out_from_answers() -> None:
    cheap = [Answer(True, 0.99, 1.0), Answer(False, 0.5, 1.0)]
    strong = [Answer(True, 0.9, 9.0), Answer(True, 0.9, 9.0)]
    found = {row.strategy: row for row in rows([EASY, HARD], cheap, strong)}
    always, never = found["always isotoken-small"], found["always isotoken-draft"]
    assert (always.accuracy, always.compute, always.strong_share) == (1.0, 1.0, 1.0)
    assert (never.accuracy, never.compute, never.strong_share) == (0.5, pytest.approx(2 / 18), 0.0)
    routed = found["complexity, threshold 0.3"]
    assert (routed.accuracy, routed.compute, routed.strong_share) == (1.0, pytest.approx(10 / 18), 0.5)
    escalated = found["cheap first, confidence 0.95"]
    assert (escalated.accuracy, escalated.compute) == (1.0, pytest.approx(11 / 18))  # the wrong guess is paid for


def test_it_writes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin, end = "<!-- routing: begin (made by benchmarks/routing.py) -->", "<!-- routing: end -->"
    (tmp_path / "routing.md").write_text(f"before\n{begin}\nstale\n{end}\nafter\n")
    assert main(["--many", "1", "--backend", "reference", "--docs", str(tmp_path)]) == 0
    page = (tmp_path / "routing.md").read_text()
    assert page.startswith("before") and page.endswith("after\n") and "stale" not in page
    assert "| always isotoken-small | " in page
    assert "cheap first" in capsys.readouterr().out
