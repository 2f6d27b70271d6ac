"""Rows as lines of JSON, and back: what JSON has no word for goes by the kind of its column."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

import msgspec
from sqlalchemy import Date, DateTime, LargeBinary, Table

from ..store.metadata import Timestamp

PLAIN, MOMENT, DAY, BYTES = "plain", "moment", "day", "bytes"

_WRITE: Mapping[str, Callable[[Any], Any]] = {
    MOMENT: lambda value: value.astimezone(UTC).isoformat(),
    DAY: lambda value: value.isoformat(),
    BYTES: lambda value: base64.b64encode(value).decode(),
}
_READ: Mapping[str, Callable[[Any], Any]] = {
    MOMENT: datetime.fromisoformat,
    DAY: date.fromisoformat,
    BYTES: base64.b64decode,
}


def kinds(table: Table) -> dict[str, str]:
    """Return each column's kind, by its name."""
    return {column.name: _kind(column.type) for column in table.columns}


def to_lines(rows: Iterable[Mapping[str, Any]], kinds: Mapping[str, str]) -> Iterator[bytes]:
    """Yield a line for each row."""
    special = [(name, _WRITE[kind]) for name, kind in kinds.items() if kind != PLAIN]
    for row in rows:
        told = dict(row)
        for name, write in special:
            if told[name] is not None:
                told[name] = write(told[name])
        yield msgspec.json.encode(told) + b"\n"


def from_lines(lines: Iterable[bytes], kinds: Mapping[str, str], *, has_zones: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each line; `has_zones`: the database keeps time zones, else it is told UTC."""
    special = [(name, _READ[kind]) for name, kind in kinds.items() if kind != PLAIN]
    for line in lines:
        row: dict[str, Any] = msgspec.json.decode(line)
        for name, read in special:
            if row[name] is not None:
                value = read(row[name])
                row[name] = value.replace(tzinfo=None) if kinds[name] == MOMENT and not has_zones else value
        yield row


def _kind(column_type: object) -> str:
    match column_type:
        case Timestamp() | DateTime():
            return MOMENT
        case Date():
            return DAY
        case LargeBinary():
            return BYTES
    return PLAIN
