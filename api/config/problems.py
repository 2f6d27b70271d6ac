"""What is wrong with a configuration: each problem with where it stands, and all of them in one error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ...core.types import IsotokenError

Path = tuple[str | int, ...]
"""Where a value stands: ("models", 0, "name")."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One of them."""

    where: str  # "server.yaml:12", "ISOTOKEN_SERVER__PORT", "--port"
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class ConfigError(IsotokenError, ValueError):
    """A configuration that cannot be used."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        head = (
            "the configuration has an error" if len(problems) == 1 else f"the configuration has {len(problems)} errors"
        )
        super().__init__("\n".join([head, *(f"  {problem}" for problem in problems)]))


def dotted(path: Path) -> str:
    """Write a path as users do: models[0].name."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def near(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'port'?" for a name that is close to known ones, else the known ones."""
    known = list(known)
    if close := get_close_matches(name, known, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(known))}" if known else ""
