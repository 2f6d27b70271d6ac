"""The picture of the matrix: every behaviour of every target, the aspects of invariance, errors and near-ties."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .drawing import BAD, FAINT, FAIR, GOOD, INK, LINE, NONE, SECOND, Sheet

_AREAS = {
    "CON": "Contract", "LOG": "Logits", "GRE": "Greedy", "SEE": "Seeded", "INV": "Invariance", "SPE": "Speculation",
    "LIF": "Lifecycle", "SCO": "Scoring", "NUM": "Numbers",
}  # fmt: skip
_COLOURS = {"passed": GOOD, "absent": NONE, "failed": BAD, "excluded": BAD, "not run": "none"}
_LEFT, _CELL, _ROW, _GAP = 190, 13, 24, 8
_WIDTH, _HEADLINE = 1140, 22

Target = Mapping[str, Any]


def head(target: Target) -> str:
    """A target in words; its device where it is not the cpu."""
    device = None if target["device"] in ("auto", "cpu") else target["device"]
    words = (target["backend"], target["dtype"], target.get("quantization"), device)
    return " ".join(word for word in words if word)


def picture(targets: Sequence[Target], levels: Mapping[str, Any] | None) -> str:
    """Draw it all on one sheet."""
    rows = _ROW * len(targets)
    charts = 2 * (_height(levels) + 66) if levels else 0
    sheet = Sheet(_WIDTH, 64 + rows + 76 + rows + 16 + charts, "Conformance of the backends")
    y = _behaviours(sheet, 24, targets)
    y = _aspects(sheet, y + 46, targets)
    if levels:
        y = _errors(sheet, y + 46, levels)
        _ties(sheet, y + 46, levels)
    return sheet.svg()


def _behaviours(sheet: Sheet, y: float, targets: Sequence[Target]) -> float:
    sheet.word(16, y, "Behaviours", size=15, bold=True)
    legend = (("passed", GOOD), ("passed, a part absent", FAIR), ("declared absent", NONE), ("failed", BAD))
    x = 200.0
    for name, colour in legend:
        sheet.box(x, y - 10, 11, 11, colour)
        sheet.word(x + 16, y, name, fill=FAINT)
        x += 40 + 6.2 * len(name)
    top = y + 40
    for number, x in _columns(targets[0]["behaviours"]):
        area, _, count = number.partition("-")
        if count == "1":
            sheet.word(x, top - 14, _AREAS.get(area, area), size=11, fill=FAINT)
    for row, target in enumerate(targets):
        at = top + _ROW * row
        sheet.word(16, at + 12, head(target))
        for number, x in _columns(target["behaviours"]):
            found = target["behaviours"][number]
            partly = found["outcome"] == "passed" and found.get("reasons")
            colour = FAIR if partly else _COLOURS[found["outcome"]]
            told = "; ".join([f"{head(target)}: {number} {found['outcome']}", *found.get("reasons", ())])
            sheet.box(x, at, _CELL - 2, 16, colour, hint=told)
    return top + _ROW * len(targets)


def _columns(behaviours: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each behaviour with the left edge of its column; areas stand apart."""
    x, area = float(_LEFT), ""
    for number in behaviours:
        x += _GAP if area and number[:3] != area else 0
        area = number[:3]
        yield number, x
        x += _CELL


def _aspects(sheet: Sheet, y: float, targets: Sequence[Target]) -> float:
    sheet.word(16, y, "What the bits of a logit do not depend on", size=15, bold=True)
    sheet.word(400, y, "= bitwise equal (framed: declared, so required); else the largest difference seen", fill=FAINT)
    names = list(targets[0]["invariance"])
    for column, name in enumerate(names):
        sheet.word(_LEFT + 120 * column, y + 22, name, fill=FAINT)
    for row, target in enumerate(targets):
        at = y + 30 + _ROW * row
        sheet.word(16, at + 13, head(target))
        for column, name in enumerate(names):
            found = target["invariance"][name]
            off, x = found["largest_difference"], float(_LEFT + 120 * column)
            text = "not run" if off is None else "=" if off == 0 else f"{off:.0e}"
            fill = NONE if off is None or off else FAIR
            sheet.box(x, at, 112, 18, fill, outline=INK if found["declared"] else "")
            sheet.word(x + 56, at + 13, text, anchor="middle", fill=FAINT if off is None or off else INK)
    return y + 30 + _ROW * len(targets)


def _height(levels: Mapping[str, Any]) -> float:
    return 24.0 + sum(20 for _ in levels["targets"]) + _HEADLINE * len({e["subject"] for e in levels["targets"]})


def _grouped(levels: Mapping[str, Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for subject in dict.fromkeys(entry["subject"] for entry in levels["targets"]):
        yield subject, [entry for entry in levels["targets"] if entry["subject"] == subject]


def _errors(sheet: Sheet, y: float, levels: Mapping[str, Any]) -> float:
    """Mean and largest error and the bound of every target, on a logarithmic axis."""
    left, right = _LEFT + 30, _WIDTH - 70
    low, high = -8.0, 0.0

    def place(value: float) -> float:
        return left + (right - left) * (max(math.log10(max(value, 1e-8)), low) - low) / (high - low)

    sheet.word(16, y, "Error of the logits", size=15, bold=True)
    told = "against the float64 oracle, in parts of the row's largest magnitude: ring mean, disc largest, red bar bound"
    sheet.word(180, y, told, fill=FAINT)
    at = y + 20
    for power in range(int(low), int(high) + 1):
        sheet.line(place(10.0**power), at, place(10.0**power), at + _height(levels) - 18)
        sheet.word(place(10.0**power), at + _height(levels) - 4, f"1e{power}", size=11, fill=FAINT, anchor="middle")
    for subject, entries in _grouped(levels):
        sheet.word(16, at + _HEADLINE - 5, f"{subject}, {entries[0]['tokens']:,} tokens", size=11, fill=FAINT)
        at += _HEADLINE
        for entry in entries:
            middle = at + 10
            sheet.word(16, middle + 4, entry["target"])
            sheet.line(place(entry["mean_error"]), middle, place(entry["max_error"]), middle, SECOND, width=2)
            sheet.line(place(entry["bound"]), middle - 8, place(entry["bound"]), middle + 8, BAD, width=3)
            sheet.dot(place(entry["mean_error"]), middle, SECOND, hollow=True, hint=f"mean {entry['mean_error']:.2e}")
            sheet.dot(place(entry["max_error"]), middle, SECOND, hint=f"largest {entry['max_error']:.2e}")
            at += 20
    return at + 24


def _ties(sheet: Sheet, y: float, levels: Mapping[str, Any]) -> float:
    """Positions that the bound decides, near-ties, and those of them that fell otherwise, as shares of all."""
    left, right = _LEFT + 30, _WIDTH - 330
    sheet.word(16, y, "Near-ties", size=15, bold=True)
    for place, colour, text in (
        (180, GOOD, "decided: the token is certain"),
        (390, FAIR, "near-ties"),
        (490, BAD, "flips"),
    ):
        sheet.box(place, y - 10, 11, 11, colour)
        sheet.word(place + 16, y, text, fill=FAINT)
    at = y + 20
    for subject, entries in _grouped(levels):
        sheet.word(16, at + _HEADLINE - 5, f"{subject}, {entries[0]['tokens']:,} tokens", size=11, fill=FAINT)
        at += _HEADLINE
        for entry in entries:
            sheet.word(16, at + 14, entry["target"])
            x = float(left)
            for key, colour in (("decided", GOOD), ("near_ties", FAIR), ("flips", BAD)):
                count = entry[key] - (entry["flips"] if key == "near_ties" else 0)
                width = (right - left) * count / entry["tokens"]
                sheet.box(x, at + 3, max(width, 1.5 if count else 0), 14, colour, hint=f"{key}: {entry[key]}")
                x += width
            told = f"{entry['near_ties']:,} near-ties, {entry['flips']:,} flips, {entry['wrong']} wrong"
            sheet.word(right + 12, at + 14, told, size=11, fill=FAINT)
            at += 20
    sheet.line(left, at + 6, right, at + 6, LINE)
    return at + 24
