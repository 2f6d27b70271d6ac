"""The matrix, its picture and its page say what the reports say."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from isotoken.conformance.drawing import BAD, FAIR, GOOD, NONE
from isotoken.conformance.matrix import Contents, main, matrix
from isotoken.conformance.page import page
from isotoken.conformance.picture import picture
from isotoken.conformance.spec import behaviours

from .make_matrix import DATA, LEVELS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def report() -> dict[str, Any]:
    """A report with one behaviour of each outcome, and an aspect that was declared and one that was not."""
    found: dict[str, Any] = copy.deepcopy(json.loads((DATA / "onnxruntime.json").read_text()))
    found["targets"] = found["targets"][:2]
    first = found["targets"][0]["behaviours"]
    for entry in first.values():
        entry.update(outcome="passed", reasons=[])
    first["CON-1"].update(outcome="failed")
    first["CON-2"].update(outcome="absent", reasons=["for a reason"])
    first["CON-3"].update(reasons=["a part of it"])
    found["targets"][0]["invariance"]["company"] = {"declared": True, "largest_difference": 0.0}
    found["targets"][0]["invariance"]["threads"] = {"declared": False, "largest_difference": 3e-7}
    return found


@pytest.fixture
def levels() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(LEVELS.read_text())
    return found


def fills(svg: str, told: str) -> list[str]:
    """Colours of the boxes whose hint begins like this."""
    boxes = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [box.get("fill", "") for box in boxes if (box.findtext(f"{SVG}title") or "").startswith(told)]


def test_the_picture_shows_every_behaviour(report: dict[str, Any], levels: dict[str, Any]) -> None:
    svg = picture(report["targets"], levels)
    name = "onnxruntime float32"
    assert fills(svg, f"{name}: CON-1 failed") == [BAD]
    assert fills(svg, f"{name}: CON-2 absent; for a reason") == [NONE]
    assert fills(svg, f"{name}: CON-3 passed; a part of it") == [FAIR]
    assert fills(svg, f"{name}: CON-4 passed") == [GOOD]
    assert len(fills(svg, f"{name}: ")) == len(behaviours())
    words = [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert {"company", "3e-07", "=", "onnxruntime float32 int8", "Near-ties"} <= set(words)
    for entry in levels["targets"]:
        drawn = 2 * len({e["subject"] for e in levels["targets"]})  # in the chart of errors and that of near-ties
        assert words.count(entry["target"]) in (drawn, drawn + 2), "and in the two grids, if the suite ran on it"


def test_nothing_is_drawn_outside_of_the_picture(report: dict[str, Any], levels: dict[str, Any]) -> None:
    root = ElementTree.fromstring(picture(report["targets"], levels))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    lowest = 0.0
    for box in root.iter(f"{SVG}rect"):
        right = float(box.get("x", 0)) + float(box.get("width", 0))
        bottom = float(box.get("y", 0)) + float(box.get("height", 0))
        assert right <= width and bottom <= height
        lowest = max(lowest, float(box.get("y", 0)))
    assert height - 60 < lowest, "the sheet is longer than what is on it"


def test_the_tables_say_it_too(report: dict[str, Any], levels: dict[str, Any]) -> None:
    text = matrix(Contents([report], levels, ["A sentence above all."]), "images/x.svg")
    assert re.search(r"^\| CON-1 .* \| \*\*✗\*\* \| ✓ \|$", text, re.MULTILINE)
    assert re.search(r"^\| CON-2 .* \| – \| ✓ \|$", text, re.MULTILINE)
    assert re.search(r"^\| CON-3 .* \| ✓ partly \| ✓ \|$", text, re.MULTILINE)
    assert "| company | **=** |" in text
    assert "| threads | 3e-07 |" in text
    assert text.index("A sentence above all.") < text.index("(images/x.svg)") < text.index("| CON-1")
    assert text.count("| refused |") == len(levels["controls"])
    levels["controls"][0]["caught"] = False
    assert "**NOT REFUSED**" in matrix(Contents([report], levels))


def test_the_picture_may_lie_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = str(DATA / "reference.json")
    picture, table = tmp_path / "there" / "x.svg", tmp_path / "here" / "matrix.md"
    assert main([report, "--picture", str(picture), "--output", str(table)]) == 0
    assert "](../there/x.svg)" in table.read_text()
    assert picture.read_text().startswith("<svg")
    picture.write_text("no JSON")
    with pytest.raises(SystemExit):
        main([report, "--levels", str(picture)])
    assert f"{picture} holds no levels" in capsys.readouterr().err


def test_the_page_needs_no_other_file(report: dict[str, Any], levels: dict[str, Any]) -> None:
    drawn = picture(report["targets"], levels)
    html = page(matrix(Contents([report], levels)), drawn)
    assert drawn.strip() in html
    assert not re.findall(r"(?:src|href)=|@import|url\(|https?://(?!www\.w3\.org)", html)
    rows = [line for line in html.splitlines() if line.startswith("<tr><td")]
    assert len(rows) > len(behaviours()) + len(levels["pairs"]) + len(levels["targets"])
    assert '<td class="fail"><b>✗</b></td>' in html
    assert len(re.findall(r'<td class="none">–</td>', html)) >= 1
