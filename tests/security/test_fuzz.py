"""A server with everything on is fuzzed for a moment: `python -m benchmarks.fuzz` does it for as long as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("schemathesis")
from benchmarks.fuzz.__main__ import failed, fuzz, summary
from benchmarks.fuzz.protocol import SEEDS, damaged

SEED = 20


def test_no_route_fails_and_nothing_hangs(tmp_path: Path) -> None:
    report = fuzz(tmp_path, seed=SEED, max_examples=3, phases="fuzzing")
    print(summary(report))
    assert not failed(report), summary(report)
    assert report["routes"]["operations"] >= 20
    assert report["routes"]["cases"] >= 50
    assert report["protocol"]["sent"] >= 20
    accepted = {name: counts["accepted"] for name, counts in report["routes"]["accepted"].items()}
    assert min(accepted["GET /v1/models"], accepted["GET /admin/keys"], accepted["POST /v1/chat/completions"]) > 0


def test_damage_is_the_seeds() -> None:
    """So that a failure can be had again."""
    import random

    assert damaged(random.Random(SEED)) == damaged(random.Random(SEED)) not in SEEDS
