"""The built-in backends conform, and the published matrix is what they do today."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from isotoken.conformance import SUITE_VERSION
from isotoken.conformance.matrix import matrix
from isotoken.conformance.spec import behaviours

from .make_matrix import BACKENDS, DOCS, report


def published(backend: str) -> dict[str, Any]:
    """The committed report of a backend."""
    contents: dict[str, Any] = json.loads((DOCS / "conformance" / f"{backend}.json").read_text())
    return contents


def test_the_matrix_is_made_from_the_reports() -> None:
    assert (DOCS / "conformance.md").read_text() == matrix([published(name) for name in BACKENDS])


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_reports_are_of_this_suite(backend: str) -> None:
    contents = published(backend)
    assert contents["suite_version"] == SUITE_VERSION
    assert tuple(target["dtype"] for target in contents["targets"]) == BACKENDS[backend]
    for target in contents["targets"]:
        assert list(target["behaviours"]) == list(behaviours())
        assert {found["outcome"] for found in target["behaviours"].values()} <= {"passed", "absent"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("backend", "dtype"), [("reference", "float64"), ("torch", "float32"), ("torch", "bfloat16")])
def test_conforms_as_published(backend: str, dtype: str, tmp_path: Path) -> None:
    """The whole suite; every behaviour has the outcome that the committed report says, with the same reasons."""
    if find_spec("torch") is None and backend == "torch":
        pytest.skip("torch is not installed")
    path = tmp_path / "out.json"
    assert report(backend, (dtype,), path) == 0
    (found,) = json.loads(path.read_text())["targets"]
    (due,) = (target for target in published(backend)["targets"] if target["dtype"] == dtype)
    assert found["behaviours"] == due["behaviours"], "docs/conformance is stale: run tests/conformance/make_matrix.py"
    assert found["absences"] == due["absences"]
    assert found["numbers"]["max_logits_error"] <= found["bound"]
