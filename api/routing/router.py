"""Routers: what decides, from a prompt's features, which model is enough for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from .features import Features


class Decision(NamedTuple):
    """Where a request goes, and why, in a few words for the answer's header."""

    model: str
    why: str


class Router(Protocol):
    """Decides. Called in the server's event loop, once a request: it must not take long."""

    def choose(self, features: Features, candidates: Sequence[str]) -> Decision:
        """Return one of the candidates, which are models' names, the cheapest first."""
        ...


class ComplexityRouter:
    """Adds up points for what tends to make a prompt hard, and compares them with a threshold for each step up.

    No model is asked and nothing is learned: the points are in the options, and the header shows the sum.
    """

    POINTS: Mapping[str, float] = {
        "long": 0.3,  # for `long_words` words or more; fewer count in proportion
        "long_words": 200,
        "turns": 0.1,  # for six messages or more; likewise
        "code": 0.4,  # times the share of lines that look like code, doubled, at most 1
        "digits": 0.2,  # for a tenth of digits or more
        "scripts": 0.15,  # for each alphabet beyond the first, two at most
        "reason": 0.35,  # for a question that asks for more than a fact
        "fact": 0.0,
        "threshold": 0.3,  # for each step up
    }

    def __init__(self, options: Mapping[str, float]) -> None:
        """Options replace POINTS. Raises ValueError for an unknown one."""
        unknown = sorted(set(options) - set(self.POINTS))
        if unknown:
            raise ValueError(f"router complexity: unknown option {unknown[0]!r}; there are {', '.join(self.POINTS)}")
        self._points = {**self.POINTS, **options}

    def score(self, features: Features) -> float:
        """Return a prompt's points."""
        points = self._points
        score = points["long"] * min(1.0, features.num_words / max(1.0, points["long_words"]))
        score += points["turns"] * min(1.0, (features.num_turns - 1) / 5)
        score += points["code"] * min(1.0, 2 * features.code)
        score += points["digits"] * min(1.0, 10 * features.digits)
        score += points["scripts"] * min(2, max(0, features.num_scripts - 1))
        return score + points.get(features.question, 0.0)

    def choose(self, features: Features, candidates: Sequence[str]) -> Decision:
        """See Router. With k + 1 candidates the steps are at threshold times 1 to k."""
        score = self.score(features)
        threshold = self._points["threshold"]
        step = len(candidates) - 1 if threshold <= 0 else min(int(score / threshold), len(candidates) - 1)
        return Decision(candidates[step], f"complexity={score:.2f}")
