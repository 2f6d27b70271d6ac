"""SPEC.md and the tests agree, both ways."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import isotoken.conformance
from isotoken.conformance import SUITE_VERSION
from isotoken.conformance.spec import behaviours

SUITE = Path(isotoken.conformance.__file__).parent


def suite() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every test of the suite with the numbers it cites."""
    for file in sorted(SUITE.glob("test_*.py")):
        module = importlib.import_module(f"isotoken.conformance.{file.stem}")
        for name, value in vars(module).items():
            if name.startswith("test_") and isinstance(value, FunctionType) and value.__module__ == module.__name__:
                marks = [mark for mark in getattr(value, "pytestmark", []) if mark.name == "isotoken_spec"]
                yield f"{file.name}::{name}", tuple(number for mark in marks for number in mark.args)


def test_every_test_cites_behaviours_that_exist() -> None:
    for name, cited in suite():
        assert cited, f"{name} cites no behaviour"
        assert set(cited) <= set(behaviours()), f"{name} cites {set(cited) - set(behaviours())}, unknown to SPEC.md"


def test_every_behaviour_has_a_test() -> None:
    cited = {number for _, numbers in suite() for number in numbers}
    assert set(behaviours()) == cited


def test_numbers_rise_within_each_area() -> None:
    areas: dict[str, list[int]] = {}
    for number in behaviours():
        area, _, count = number.partition("-")
        areas.setdefault(area, []).append(int(count))
    assert len(areas) == 9
    for area, counts in areas.items():
        assert counts == sorted(set(counts)), area


def test_versions_agree() -> None:
    assert f"Version {SUITE_VERSION}." in (SUITE / "SPEC.md").read_text()
