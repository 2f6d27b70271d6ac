"""Features: the settings of everything that is off until it is configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..fleet.settings import FleetSettings
    from ..gateway.settings import GatewaySettings
    from ..ledger.settings import LedgerSettings
    from ..routing.settings import RoutingSettings
    from ..safety.settings import SafetySettings
    from ..store.settings import StoreSettings
    from ..structured.settings import StructuredSettings
    from ..telemetry.settings import TelemetrySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One field for each feature. None: it is off, and nothing of it is imported."""

    store: StoreSettings | None = None  # None: the default one, should a feature need it
    gateway: GatewaySettings | None = None
    ledger: LedgerSettings | None = None
    safety: SafetySettings | None = None
    telemetry: TelemetrySettings | None = None
    fleet: FleetSettings | None = None
    routing: RoutingSettings | None = None
    structured: StructuredSettings | None = None  # None: its defaults
