"""Reports: what was used, by tenant, key, model, version, arm, day and month, from the sums by day."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, cast, func, select

from ..store.tables.ledger import usage_days, usage_entries, usage_journals
from .database import GROUP, SUMS
from .money import to_decimal

NUMBERS = ("requests", "failed", *SUMS)
FIELDS = (*GROUP, "month")
ENTRY_FIELDS = [column.name for column in usage_entries.c]

_PART = 10**9  # SQLite's sums end at 2^63, which is 9 million of the currency: costs are added in two parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a report is about."""

    by: tuple[str, ...] = ("tenant", "model", "day")
    since: date | None = None  # the first day
    until: date | None = None  # the last day
    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a field that there is not, and for a name that nothing can have."""
        if not self.by or len(set(self.by)) < len(self.by):
            raise ValueError(f"by takes one or more of {', '.join(FIELDS)}, each once")
        for name in ("tenant", "key_id", "model"):
            if not (getattr(self, name) or "").isprintable():
                raise ValueError(f"{name} = {getattr(self, name)!r} is no name")
        if unknown := set(self.by) - set(FIELDS):
            raise ValueError(f"usage is not counted by {', '.join(sorted(unknown))}: by {', '.join(FIELDS)}")


def usage(connection: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """Return rows with the fields of `wanted.by` and the NUMBERS; `cost` in money.UNITs."""
    groups = [_field(name) for name in wanted.by]
    query = select(*groups, *_totals()).where(*_conditions(wanted)).group_by(*groups).order_by(*groups)
    return [_joined(dict(row)) for row in connection.execute(query).mappings()]


def total(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return the sums over rows."""
    rows = list(rows)
    return {name: sum(row[name] for row in rows) for name in NUMBERS}


def for_people(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON takes it: dates as text, the cost as an exact decimal number in text."""
    told = {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}
    return told | {"cost": f"{to_decimal(row['cost']):f}"}


def entries(connection: Connection, *, tenant: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the newest entries, each one request, newest first."""
    query = select(usage_entries).order_by(usage_entries.c.ended.desc(), usage_entries.c.id).limit(limit)
    if tenant is not None:
        query = query.where(usage_entries.c.tenant == tenant)
    return [dict(row) for row in connection.execute(query).mappings()]


def sums_since(connection: Connection, kind: str, since: date, names: Collection[str]) -> dict[str, tuple[int, int]]:
    """Return what tenants or keys (`kind`) have used since a day: name -> (cost, tokens)."""
    owner = usage_days.c.tenant if kind == "tenant" else usage_days.c.key_id
    query: Select[Any] = (
        select(owner.label("owner"), *_totals())
        .where(owner.in_(sorted(names)), usage_days.c.day >= since)
        .group_by(owner)
    )
    rows = [_joined(dict(row)) for row in connection.execute(query).mappings()]
    return {row["owner"]: (row["cost"], row["prompt_tokens"] + row["generated_tokens"]) for row in rows}


def journal_position(connection: Connection, journal: str) -> int:
    """Return the number of a journal's last entry that is in the database."""
    query = select(usage_journals.c.position).where(usage_journals.c.id == journal)
    return connection.execute(query).scalar_one_or_none() or 0


def _field(name: str) -> ColumnElement[Any]:
    if name == "month":
        return func.substr(cast(usage_days.c.day, String), 1, 7).label("month")
    return usage_days.c[name]


def _totals() -> Sequence[ColumnElement[Any]]:
    plain = [func.sum(usage_days.c[name]).label(name) for name in NUMBERS if name != "cost"]
    cost = usage_days.c.cost
    return [*plain, func.sum(cost // _PART).label("cost_high"), func.sum(cost % _PART).label("cost_low")]


def _joined(row: dict[str, Any]) -> dict[str, Any]:
    high, low = row.pop("cost_high"), row.pop("cost_low")
    numbers = {name: int(row[name]) for name in NUMBERS if name in row}
    return row | numbers | {"cost": int(high) * _PART + int(low)}


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    days = usage_days.c
    chosen = []
    if wanted.since is not None:
        chosen.append(days.day >= wanted.since)
    if wanted.until is not None:
        chosen.append(days.day <= wanted.until)
    for name in ("tenant", "key_id", "model"):
        value = getattr(wanted, name)
        if value is not None:
            chosen.append(days[name] == value)
    return chosen
