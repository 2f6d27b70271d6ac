"""What the fleet looks like to an operator, as JSON."""

from __future__ import annotations

from typing import Any

from .fleet import Fleet


def status(fleet: Fleet) -> dict[str, Any]:
    """Return every model, every name with its past, and the memory."""
    roster, budget = fleet.roster, fleet.lifecycle.loader.budget
    holders = [holder for each in roster.deployments if (holder := each.holder(evictable=False)) is not None]
    used = sum(holder.need.total for holder in holders)
    return {
        "state": roster.state,
        "default": roster.default,
        "models": [each.told(roster.names.names_of(each.key) if each.is_up else ()) for each in roster.deployments],
        "names": {
            name: {"key": key, "loaded": roster.live(key) is not None, "history": list(roster.names.history(name))}
            for name, key in roster.names.current.items()
        },
        "memory": {
            "budget": budget.total or None,
            "used": used,
            "free": max(0, budget.total - used) if budget.total else None,
            "evict_idle": fleet.settings.evict_idle,
        },
    }
