"""The benchmark of filters runs, and measures each chain that the documentation tells of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks import filters  # noqa: E402


def test_every_chain_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(filters, "TEXT", filters.TEXT[:400])
    monkeypatch.setattr(filters, "REPEATS", 1)
    filters.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(filters.makers())
    assert all("us a token" in line and "us a character" in line for line in lines[1:])
