"""Money as exact integers: sums of floating-point prices drift, these do not."""

from __future__ import annotations

from decimal import Decimal

UNIT = 10**12
"""Parts of the currency that are counted. A token at 0.15 a million costs 150,000 of them."""

_PER_TOKEN = UNIT // 10**6


def per_token(price: Decimal) -> int:
    """Return what one token costs in UNITs, given the price of a million. Raises ValueError for one too fine."""
    cost = price * _PER_TOKEN
    if not cost.is_finite() or cost < 0 or cost != cost.to_integral_value():
        raise ValueError(f"a price of {price} a million tokens is not allowed: at least 0, with up to 6 decimals")
    return int(cost)


def to_units(amount: Decimal) -> int:
    """Return an amount of the currency in UNITs, rounded down."""
    return int(amount * UNIT)


def to_decimal(units: int) -> Decimal:
    """Return an amount in the currency, exactly."""
    return Decimal(units).scaleb(-12).normalize() + 0


def shown(units: int, places: int = 6) -> str:
    """Return an amount for people, rounded to `places`."""
    return f"{Decimal(units).scaleb(-12):.{places}f}"
