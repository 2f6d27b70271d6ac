"""What can be wrong with a database, in words for whoever runs the server."""

from __future__ import annotations

from ...core.types import IsotokenError


class StoreError(IsotokenError):
    """The database cannot be used as it is. The message says why and what to do."""


class StoreUnavailable(StoreError):
    """The database does not answer now; it may later. What was asked for was not done, as far as is known."""
