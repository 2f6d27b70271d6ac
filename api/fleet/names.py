"""Names: which version each name and alias stands for, and which it stood for before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

MAX_HISTORY = 32  # versions that a name remembers

Action = Literal["declare", "undeclare", "set", "rollback", "remove"]
"""declare: the configuration began to say so, undeclare: it ceased to name it; the others: an operator did."""


@dataclass(frozen=True, slots=True)
class Move:
    """One change of what a name stands for."""

    name: str
    action: Action
    key: str = ""  # name@version that it stands for from now on; empty once it is removed


class Names:
    """The table. Every change is one assignment: whoever looks sees all of it or nothing."""

    def __init__(self) -> None:
        self._stacks: dict[str, tuple[str, ...]] = {}  # the last is what the name stands for
        self._declared: dict[str, str] = {}  # what the configuration said at last

    def __contains__(self, name: object) -> bool:
        return name in self._stacks

    @property
    def current(self) -> dict[str, str]:
        """What every name stands for."""
        return {name: stack[-1] for name, stack in self._stacks.items()}

    def get(self, name: str) -> str | None:
        """Return what a name stands for."""
        stack = self._stacks.get(name)
        return stack[-1] if stack else None

    def history(self, name: str) -> tuple[str, ...]:
        """Return what a name stood for, the oldest first and the present one last."""
        return self._stacks.get(name, ())

    @property
    def declared(self) -> dict[str, str]:
        """What the configuration said at last."""
        return dict(self._declared)

    def previous(self, name: str) -> str | None:
        """Return what a name would stand for after a rollback."""
        stack = self._stacks.get(name, ())
        return stack[-2] if len(stack) > 1 else None

    def names_of(self, key: str) -> tuple[str, ...]:
        """Return the names that stand for a version now."""
        return tuple(name for name, stack in self._stacks.items() if stack[-1] == key)

    def remembered(self) -> set[str]:
        """Return every version that some name stands or stood for."""
        return {key for stack in self._stacks.values() for key in stack}

    def apply(self, moves: Iterable[Move]) -> None:
        """Make changes, all at once. Those that an older journal holds are made alike."""
        stacks, declared = dict(self._stacks), dict(self._declared)
        for move in moves:
            if move.action == "declare":
                declared[move.name] = move.key
            elif move.action == "undeclare":
                declared.pop(move.name, None)
            if move.action in ("remove", "undeclare"):
                stacks.pop(move.name, None)
            elif move.action == "rollback":
                stacks[move.name] = _popped(stacks.get(move.name, ()), move.key)
            else:
                stacks[move.name] = _pushed(stacks.get(move.name, ()), move.key)
        self._stacks, self._declared = stacks, declared


def configured(names: Names, wanted: Mapping[str, str]) -> list[Move]:
    """Return the moves that a configuration asks for, given {name: key}.

    What an operator changed since stays as long as the configuration says what it said before.
    """
    declared = names.declared
    gone = [Move(name, "undeclare") for name in declared if name not in wanted]
    return gone + [Move(name, "declare", key) for name, key in wanted.items() if declared.get(name) != key]


def _pushed(stack: tuple[str, ...], key: str) -> tuple[str, ...]:
    return stack if stack[-1:] == (key,) else (*stack, key)[-MAX_HISTORY:]


def _popped(stack: tuple[str, ...], key: str) -> tuple[str, ...]:
    """Go back to `key`; where it was forgotten meanwhile, it is all that is left."""
    while stack and stack[-1] != key:
        stack = stack[:-1]
    return stack or (key,)
