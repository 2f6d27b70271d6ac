"""What a parser of tool calls finds in an answer, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """Text that is for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class CallOpened:
    """A call begins; its arguments follow."""

    index: int  # among the answer's calls
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of a call's arguments: JSON, as the model writes it."""

    index: int
    text: str


Event = Content | CallOpened | Arguments
