"""The plugin that does the damage, installed for engines that are started from here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Damage = Callable[[list[dict[str, Any]]], None]


@pytest.fixture
def chaos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that says, in `done`, what has gone wrong so far."""
    site = tmp_path / "site"
    info = site / "isotoken_chaos-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "isotoken_chaos.py").write_text((Path(__file__).parent / "chaos_plugin.py").read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: isotoken-chaos\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[isotoken]\nchaos = isotoken_chaos\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("CHAOS_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def damage(chaos: Path) -> Damage:
    """Let things go wrong from the next engine on: one entry for each of its lives."""

    def plan(lives: list[dict[str, Any]]) -> None:
        (chaos / "plan.json").write_text(json.dumps(lives))

    plan([])
    return plan
