"""The first position at which two sides say different things, and whether rounding explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.types import DecodeParams
from .draw import draw, processed
from .oracle import Array
from .sides import label
from .targets import Target


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that could have come next, with a side's logit for it and the base's."""

    token: int
    logit: float
    base_logit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One side at the position where the two part. Errors and margins are in logit units."""

    side: str
    token: int
    top: list[Candidate]  # the side's best, best first
    error: float  # the largest difference of any logit from the base's
    bound: float  # on that error
    due: int  # what the rules give on the base's logits
    margin: float  # by which it wins there, noise included where tokens are drawn
    missed_by: float  # by how much this side's token missed there; 0: it is the due one; inf: it was filtered out
    explained: float  # how much of that rounding may explain

    @property
    def right(self) -> bool:
        """Whether rounding explains this side's token and logits."""
        return self.missed_by <= self.explained and self.error <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What was found there."""

    index: int  # of the output token
    position: int  # in the whole sequence
    views: tuple[View, View]
    base: str  # what judges
    base_top: list[Candidate]
    logits_difference: float  # between the sides, the largest of any logit
    verdict: str  # "near-tie" or "real"
    reason: str


@dataclass(frozen=True, slots=True)
class Side:
    """One side's tokens and logits, and the base's logits with the weights that this side has."""

    target: Target
    tokens: list[int]  # all output
    logits: Array  # [V] after the common prefix
    exact: Array  # [V]


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first index at which two outputs differ; where one goes on after the other's end, that index."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return None if len(one) == len(other) else min(len(one), len(other))


def judge_difference(
    prompt: Sequence[int], params: DecodeParams, sides: tuple[Side, Side], base: Target, eos: frozenset[int], top: int
) -> Difference:
    """Judge each side's token at the first difference by the rules on the base's logits."""
    one, other = sides
    index = first_difference(one.tokens, other.tokens)
    assert index is not None, "the sides agree"
    output = one.tokens[:index]
    position = len(prompt) + index
    seen = [_view(side, list(prompt), output, params, base, eos, top) for side in sides]
    views = (seen[0], seen[1])
    verdict, reason = _verdict(views, one.target.quantization == other.target.quantization)
    return Difference(
        index=index,
        position=position,
        views=views,
        base=label(base),
        base_top=_top(one.exact, one.exact, top),
        logits_difference=float(abs(one.logits - other.logits).max()),
        verdict=verdict,
        reason=reason,
    )


def _view(
    side: Side, prompt: list[int], output: list[int], params: DecodeParams, base: Target, eos: frozenset[int], top: int
) -> View:
    mine, wide, size = side.target.precision, base.precision, float(abs(side.exact).max())
    own = 0.0 if wide.dtype == "float64" else wide.bound  # what the judge itself may get wrong
    token = side.tokens[len(output)]
    position = len(prompt) + len(output)
    x = processed(side.exact, params, prompt, output, eos)
    drawn = draw(x, params, position, (mine.tie + own) * size, token)
    return View(
        side=label(side.target),
        token=token,
        top=_top(side.logits, side.exact, top),
        error=float(abs(side.logits - side.exact).max()),
        bound=(mine.bound + own) * size,
        due=drawn.token,
        margin=drawn.margin,
        missed_by=drawn.deficit,
        explained=drawn.tolerance,
    )


def _verdict(views: tuple[View, View], same_weights: bool) -> tuple[str, str]:
    """near-tie or real, and why."""
    wrong = [view for view in views if not view.right]
    if wrong:
        return "real", "; ".join(_fault(view) for view in wrong)
    if not same_weights and views[0].due != views[1].due:
        return "real", "the weights differ: each side is right by its own, and quantisation decides otherwise here"
    nearest = max(views, key=lambda view: view.missed_by)
    return "near-tie", (
        f"{nearest.side} missed by {nearest.missed_by:.3g} where rounding explains {nearest.explained:.3g}, and both "
        "sides' logits lie within their bounds"
    )


def _fault(view: View) -> str:
    if view.error > view.bound:
        return f"{view.side}: its logits are off by {view.error:.3g}, the bound is {view.bound:.3g}"
    missed = "it is filtered out" if np.isinf(view.missed_by) else f"it misses by {view.missed_by:.3g}"
    return f"{view.side}: {view.token} is wrong, {view.due} is due; {missed}, rounding explains {view.explained:.3g}"


def _top(logits: Array, exact: Array, count: int) -> list[Candidate]:
    """The best tokens; of equal ones the lowest first."""
    order = np.lexsort((np.arange(len(logits)), -logits))[:count]
    return [Candidate(int(i), float(logits[i]), float(exact[i])) for i in order]
