"""What of the conformance suite asks for a model."""

from __future__ import annotations

from ...core.capabilities import Exclusion

EXCLUSIONS: tuple[Exclusion, ...] = ()
