"""LexiconClassifier: phrases that speak for a category of harm, each with a weight. Fast, plain, and easily fooled.

It knows what it lists, in English, and nothing else: no irony, no other spelling, no context beyond a phrase. What it
gets right and wrong on the sentences of tests/api/safety/moderation_set.py is told in docs/safety.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""OpenAI's."""

MAX_CHARACTERS = 100_000
"""Of one text that are read."""

_SOURCE = "lexicon.txt"
_NAME = re.compile(r"<([A-Z]+)>")
_GAP = re.compile(r"<(\d)>")

_MINOR = re.compile(
    r"\b(?:child|children|kids?|underage|minors?|toddlers?|preteens?|school ?(?:girl|boy)s?|little (?:girl|boy)s?"
    r"|(?:[1-9]|1[0-7]) ?(?:year|yr)s? ?old)\b"
)
_DROPPED = re.compile(r"['’`]")
_BETWEEN = re.compile(r"[\s\-_*\"“”(),;:/]+")


class LexiconClassifier:
    """Scores 1 - (1 - w1)(1 - w2)... over the phrases that occur, so that several weak ones add up."""

    name = "isotoken-lexicon-1"
    categories: Sequence[str] = CATEGORIES

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Return the scores of each text."""
        return [_scores(text[:MAX_CHARACTERS]) for text in texts]


def _scores(text: str) -> dict[str, float]:
    plain = _BETWEEN.sub(" ", _DROPPED.sub("", text.casefold()))
    scores = {category: _score(patterns, plain) for category, patterns in _entries().items()}
    scores["sexual/minors"] = scores["sexual"] if _MINOR.search(plain) else 0.0
    # A kind of harm that implies another: who threatens people harasses them.
    scores["hate"] = max(scores["hate"], scores["hate/threatening"])
    scores["harassment"] = max(scores["harassment"], scores["harassment/threatening"])
    scores["illicit"] = max(scores["illicit"], scores["illicit/violent"])
    scores["self-harm"] = max(scores["self-harm"], scores["self-harm/intent"], scores["self-harm/instructions"])
    scores["violence"] = max(scores["violence"], scores["violence/graphic"])
    return {category: round(scores[category], 4) for category in CATEGORIES}


def _score(entries: list[tuple[float, re.Pattern[str]]], text: str) -> float:
    against = 1.0
    for weight, pattern in entries:
        if pattern.search(text):
            against *= 1 - weight
    return 1 - against


@cache
def _entries() -> dict[str, list[tuple[float, re.Pattern[str]]]]:
    """Read the list beside this module: names, then a heading and its lines for each category."""
    names: dict[str, str] = {}
    found: dict[str, list[tuple[float, re.Pattern[str]]]] = {}
    category = ""
    for line in files(__package__).joinpath(_SOURCE).read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            category = line.strip("[]")
            found[category] = []
        elif not category:
            name, _, source = line.partition(" = ")
            names[name] = source
        else:
            weight, _, source = line.partition(" ")
            found[category].append((float(weight), _compiled(source, names)))
    return found


def _compiled(source: str, names: dict[str, str]) -> re.Pattern[str]:
    named = _NAME.sub(lambda match: names[match[1]], source)
    spaced = _GAP.sub(lambda match: rf"(?: \w+){{0,{match[1]}}}?", named)
    return re.compile(rf"\b(?:{spaced})\b")
