"""Directory: who answers to which name right now. Made anew for every change, and put in place by one assignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .served import ServedModel


class Directory:
    """Names to models. The empty name is the model that answers where none is named."""

    __slots__ = ("_by_name", "get", "models")

    def __init__(self, by_name: Mapping[str, ServedModel], models: tuple[ServedModel, ...]) -> None:
        self._by_name = dict(by_name)
        self.get: Callable[[str], ServedModel | None] = self._by_name.get
        self.models = models  # each once

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that is answered to."""
        return tuple(name for name in self._by_name if name)


NOBODY = Directory({}, ())
"""Before there is a model."""
