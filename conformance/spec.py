"""SPEC.md as data, and the marks that tie tests to it."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

_LINE = re.compile(r"^- \*\*([A-Z]{3,4}-\d+)\*\* (.+?)(?=^- |^#|\Z)", re.MULTILINE | re.DOTALL)


def spec(*behaviours: str) -> pytest.MarkDecorator:
    """Say which numbered behaviours a test proves."""
    return pytest.mark.isotoken_spec(*behaviours)


def requires(*capabilities: str) -> pytest.MarkDecorator:
    """Say which capabilities a test needs: where one is declared absent it is skipped, and reported as such."""
    return pytest.mark.isotoken_requires(*capabilities)


@lru_cache
def _all() -> dict[str, str]:
    text = (Path(__file__).parent / "SPEC.md").read_text()
    return {number: " ".join(sentence.split()) for number, sentence in _LINE.findall(text)}


@lru_cache
def behaviours() -> dict[str, str]:
    """Every numbered behaviour of a backend in SPEC.md with its sentence."""
    return {number: sentence for number, sentence in _all().items() if not number.startswith("HTTP-")}


@lru_cache
def http_behaviours() -> dict[str, str]:
    """Every numbered behaviour of a running server in SPEC.md with its sentence."""
    return {number: sentence for number, sentence in _all().items() if number.startswith("HTTP-")}
