"""The example of a production server is configured well, and its tour shows what the checklist names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from isotoken.api.config.check import check
from isotoken.api.config.load import load

EXAMPLE = Path(__file__).parents[3] / "examples" / "production"


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})


@pytest.mark.usefixtures("clean")
def test_its_configuration_is_good() -> None:
    assert "models: small, draft" in check(EXAMPLE / "isotoken.yaml")


def test_it_has_everything_on() -> None:
    features = load(EXAMPLE / "isotoken.yaml", environment={}).config.features()
    for name in ("gateway", "ledger", "safety", "telemetry", "fleet", "routing"):
        assert getattr(features, name) is not None, name
    assert features.fleet is not None
    assert [model.max_num_seqs for model in features.fleet.models] == [16, 16]


def test_its_report_is_of_a_run_in_which_all_was_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from tour import STEPS  # type: ignore[import-not-found]

    report = (EXAMPLE / "report.md").read_text()
    assert ", 0 not as they should be" in report
    for step in STEPS:
        assert f"## {step.__doc__.rstrip('.')}\n" in report
    for name in ("tour", "asking", "operating", "client"):
        sys.modules.pop(name)
