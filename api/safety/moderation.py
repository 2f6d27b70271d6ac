"""The filter `moderation`: a classifier reads each sentence before it may pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from .filters import Block, Classifier, Filter, FilterContext, Finding, MakeFilter, Release

_SENTENCE_END = re.compile(r"[.!?…][\"')\]]{0,3}\s|\n")


class ModerationOptions(BaseModel, extra="forbid"):
    """Who judges, and how strictly."""

    classifier: str = "lexicon"
    action: Literal["block", "flag"] = "block"
    threshold: float = Field(default=0.5, gt=0, le=1, description="Scores from here on count.")
    categories: frozenset[str] | None = Field(default=None, description="Those that count; left out: all.")
    max_characters: int = Field(default=400, ge=40, le=10_000, description="Of a sentence, before it is cut.")


def moderation(options: Mapping[str, Any], context: FilterContext) -> MakeFilter:
    """Return what makes such filters. Raises ValueError for options that are wrong."""
    asked = ModerationOptions(**options)
    classifier = context.classifier(asked.classifier)
    unknown = sorted((asked.categories or frozenset()) - set(classifier.categories))
    if unknown:
        known = ", ".join(classifier.categories)
        raise ValueError(f"categories = {unknown} are not judged by {asked.classifier!r}, which knows {known}")

    def make() -> Filter:
        return ModerationFilter(classifier, asked)

    return make


class ModerationFilter:
    """Holds a sentence back until it is complete, and judges it together with the one before."""

    def __init__(self, classifier: Classifier, options: ModerationOptions) -> None:
        self._classifier = classifier
        self._options = options
        self._held = ""
        self._before = ""

    def feed(self, text: str) -> Release:
        """Take a piece."""
        self._held += text
        limit = self._options.max_characters
        release = Release()
        while release.block is None:
            end = _SENTENCE_END.search(self._held, 0, limit)
            if end is None and len(self._held) < limit:
                break
            self._judge(limit if end is None else end.end(), release)
        return release

    def close(self) -> Release:
        """Judge what is left."""
        release = Release()
        if self._held:
            self._judge(len(self._held), release)
        return release

    def _judge(self, size: int, release: Release) -> None:
        sentence, self._held = self._held[:size], self._held[size:]
        options = self._options
        (scores,) = self._classifier.classify([self._before + sentence])
        self._before = sentence
        wanted = options.categories
        hits = [c for c, score in scores.items() if score >= options.threshold and (wanted is None or c in wanted)]
        release.findings = [*release.findings, *(Finding(category, options.action) for category in hits)]
        if hits and options.action == "block":
            release.block = Block(f"it was judged as {', '.join(hits)}")
        else:
            release.text += sentence
