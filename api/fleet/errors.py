"""What can be wrong with an operator's command."""

from __future__ import annotations

from ...core.types import IsotokenError


class FleetError(IsotokenError):
    """A command that cannot be carried out. Nothing was changed."""

    status = 409  # in HTTP's words


class BadCommand(FleetError):
    """A command that no state of the fleet would allow."""

    status = 400
