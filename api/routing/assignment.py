"""Assignment: who gets which arm. A hash decides, so that every server agrees and nothing need be remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

from .settings import Arm, Experiment


def share(*parts: str) -> float:
    """Return a number in [0, 1) that depends on the parts alone, uniform over different parts."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def pick(arms: Sequence[Arm], point: float) -> Arm:
    """Return the arm that a point in [0, 1) falls to, the arms laid side by side by their weights."""
    total = sum(arm.weight for arm in arms)
    ends = accumulate(arm.weight / total for arm in arms)
    return next((arm for arm, end in zip(arms, ends, strict=True) if point < end), arms[-1])


def assign(experiment: Experiment, unit: str) -> Arm:
    """Return the arm of a user, key or request."""
    return pick(experiment.arms, share(experiment.name, unit))
