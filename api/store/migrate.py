"""Bring a database to the tables of this version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import tables as _tables  # noqa: F401  (makes metadata whole)
from .metadata import metadata

if TYPE_CHECKING:
    from .database import Store


def prepare(store: Store) -> None:
    """Make the tables that are not there yet."""
    store.call(metadata.create_all)
