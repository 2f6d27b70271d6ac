"""The soak benchmark: what it makes of a leak and of none, and a few seconds of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks.soak import main, trend


def test_a_leak_is_told_from_noise() -> None:
    chance = random.Random(3)
    at = [float(second) for second in range(600)]
    leak = trend("memory", "MB", at, [100 + second / 60 + chance.gauss(0, 0.5) for second in at], 600)
    assert leak.least < 60 < leak.most  # MB an hour
    assert leak.least > 0
    noise = trend("memory", "MB", at, [100 + chance.gauss(0, 5) for _ in at], 600)
    assert noise.least < 0 < noise.most


def test_what_is_touched_first_is_no_leak() -> None:
    at = [float(second) for second in range(600)]
    filling = trend("memory", "MB", at, [min(100.0, second * 2) for second in at], 600)
    assert filling.slope == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_few_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "soak.json"
    code = main(["--minutes", "0.1", "--backend", "reference", "--json", str(file), "--docs", str(tmp_path)])
    assert code in (0, 1)  # 1: in so short a time memory still grows
    report = json.loads(file.read_text())
    assert [each["unit"] for each in report["trends"]] == ["MB", "MB", "ms", "ms"]
    assert ", 0 not answered" in report["of"]
    assert len(report["memory"]["at"]) >= 5
    assert "<svg" in (tmp_path / "images" / "soak.svg").read_text()
    assert "does it grow?" in capsys.readouterr().out
