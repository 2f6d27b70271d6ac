"""Constraints: which tokens a request's grammar lets follow. The core asks; a plugin knows grammars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from .batch import UInt32

if TYPE_CHECKING:
    from .types import Request


class ConstraintError(Exception):
    """A grammar asks for more than its limits allow here. It fails its request, alone."""


class Constraint(Protocol):
    """How far one request's output has come along its grammar. Used by one thread at a time."""

    def fill_mask(self, mask: UInt32) -> None:
        """Write mask [ceil(V / 32)]: bit i of word w for each token 32 * w + i that may follow.

        End-of-sequence tokens may where the output may end. Raises ConstraintError.
        """
        ...

    def advance(self, token_ids: Sequence[int]) -> int:
        """Take tokens up to the first that may not follow, and return how many. End-of-sequence tokens never follow."""
        ...

    def rollback(self, num_tokens: int) -> None:
        """Undo the last so many tokens that were taken."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether what was taken so far is a whole output."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether it is a whole output that nothing may follow."""
        ...

    @property
    def error(self) -> str:
        """Why nothing is taken any more, where a limit was met; else empty."""
        ...


class GrammarCompiler(Protocol):
    """Makes constraints of grammars, which are strings of its own kind (`DecodeParams.grammar`)."""

    def compile(self, grammar: str) -> Callable[[], Constraint]:
        """Return what makes constraints at their start, each with a state of its own.

        May take long and may be called by any thread. Raises ValueError, with a reason for the user, for a grammar that
        it cannot read or that asks for more than its limits allow.
        """
        ...


def num_fitting(request: Request, token_ids: Sequence[int]) -> int:
    """Return how many of these tokens may follow a request's output: all of them, where it has no constraint."""
    constraint = request.constraint
    if constraint is None:
        return len(token_ids)
    count = constraint.advance(token_ids)
    constraint.rollback(count)
    return count


def fits(constraint: Constraint, token: int, *, ends: bool) -> bool:
    """Take a token that was drawn, if it may follow; or if it `ends` the request, where that may end."""
    return (ends and constraint.may_end) or constraint.advance((token,)) == 1


def fill_rows(constraint: Constraint, drafts: Sequence[int], masks: UInt32, first: int) -> None:
    """Write masks [n, ceil(V / 32)] of n draws in a row, the first of which follows `first` of the drafts.

    Rows behind a draft that may not follow are left as they are: nobody reads them, for the mask before keeps that
    draft from being drawn. Leaves the constraint where it was. Raises ConstraintError.
    """
    taken = 0
    try:
        for row in range(-first, len(masks)):
            if row >= 0:
                constraint.fill_mask(masks[row])
            place = first + row
            if row + 1 == len(masks) or not constraint.advance(drafts[place : place + 1]):
                break
            taken += 1
            if constraint.is_finished:  # it ends there
                break
    finally:
        if taken:
            constraint.rollback(taken)
    if constraint.error:
        raise ConstraintError(constraint.error)
