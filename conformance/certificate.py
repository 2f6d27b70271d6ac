"""Certificates: how far logits are from the oracle's over many positions, and which positions that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .oracle import Trace

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen at each of T positions. Margins and errors are in parts of the row's largest magnitude."""

    margin: Array  # [T] by which the base's best logit exceeds its second
    error: Array  # [T] the largest difference of any logit
    differs: Array  # [T] bool: the best token is another one
    judged: Array  # [T] bool: no choice of experts was too close for an error to be bounded
    size: Array  # [T] the row's largest magnitude, in logit units


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the evidence comes to under a bound."""

    tokens: int  # positions compared
    unjudged: int
    bound: float | None  # on the error; None: there is none, for the weights are not the same
    decided: int  # judged, with a margin above what the bound leaves open: any logits within it give this token
    near_ties: int  # judged, but not decided
    flips: int  # near-ties whose token differs
    wrong: int  # decided positions whose token differs: never rounding
    beyond: int  # judged positions with an error above the bound
    max_error: float
    mean_error: float
    near_ties_at_max_error: int  # near-ties that would be left if the bound were the largest error seen
    min_margin: float  # in logit units
    widest_flip: float  # the largest margin at which the token differs all the same, in logit units

    @property
    def holds(self) -> bool:
        """Whether every logit lay within the bound, and every decided position had its token."""
        return self.tokens > 0 and not self.wrong and not self.beyond

    def as_json(self) -> dict[str, Any]:
        """The counts, in figures short enough to read."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in values.items()}


def against_oracle(trace: Trace, got: Array, routing_bound: float) -> Evidence:
    """Compare logits [T, V] with the oracle's for the same tokens."""
    return _evidence(trace.logits, trace.logits, got, trace.routing > routing_bound)


def against_each_other(trace: Trace, one: Array, other: Array, routing_bound: float) -> Evidence:
    """Compare two computations [T, V] of the same tokens; margins are the oracle's, whose weights `one` has."""
    return _evidence(trace.logits, one, other, trace.routing > routing_bound)


def _evidence(base: Array, one: Array, other: Array, judged: Array) -> Evidence:
    size = abs(base).max(axis=1)
    best = np.partition(base, -2, axis=1)[:, -2:]
    error = abs(other.astype(np.float64) - one).max(axis=1)
    differs = one.argmax(axis=1) != other.argmax(axis=1)
    return Evidence((best[:, 1] - best[:, 0]) / size, error / size, differs, judged, size)


def certify(parts: Sequence[Evidence], bound: float | None, *, within: float | None = None) -> Certificate:
    """Count over all parts. A position is decided where the margin exceeds twice `bound`, or twice `within` if given.

    Against the oracle the two are one. Of two computations that lie within bounds of it, the difference is bounded by
    their sum, while tokens are decided by the larger: beyond twice that, both must have the oracle's token.
    """
    margin, error, differs, judged, size = (
        np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Evidence)
    )
    open_up_to = np.inf if bound is None else 2 * (bound if within is None else within)
    decided = judged & (margin > open_up_to)
    near = judged & ~decided
    most = float(error[judged].max(initial=0.0))
    return Certificate(
        tokens=len(margin),
        unjudged=int((~judged).sum()),
        bound=bound,
        decided=int(decided.sum()),
        near_ties=int(near.sum()),
        flips=int((near & differs).sum()),
        wrong=int((decided & differs).sum()),
        beyond=0 if bound is None else int((judged & ~(error <= bound)).sum()),  # a NaN is beyond every bound
        max_error=most,
        mean_error=float(error[judged].mean()) if judged.any() else 0.0,
        near_ties_at_max_error=int((judged & (margin <= 2 * most)).sum()),
        min_margin=float((margin * size).min()),
        widest_flip=float((margin * size)[judged & differs].max(initial=0.0)),
    )
