"""Tables of the fleet: versions that were served, and what names stood for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Column, Connection, Index, String, Table, Text, insert, select

from ...fleet.names import Action
from ..metadata import Id, Timestamp, metadata

# A group is a server, or several that share their state.

versions = Table(
    "fleet_versions",
    metadata,
    Column("fleet", String(64), primary_key=True),  # the group
    Column("key", String(128), primary_key=True),  # name@version
    Column("digest", String(64), nullable=False),
    Column("contents", String(64), nullable=False),  # hash of the folder
    Column("settings", Text, nullable=False),  # ModelSettings as JSON
    Column("first_loaded", Timestamp, nullable=False),
)

moves = Table(
    "fleet_moves",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("fleet", String(64), nullable=False),
    Column("moved", Timestamp, nullable=False),
    Column("name", String(96), nullable=False),
    Column("action", String(16), nullable=False),  # names.Action
    Column("key", String(128), nullable=False),  # empty where a name was removed
    Index(None, "fleet", "id"),
)

MoveRow = tuple[str, Action, str]  # name, action, key
VersionRow = tuple[str, str, str, str]  # key, digest, contents, settings


def read_fleet(connection: Connection, group: str) -> tuple[list[MoveRow], list[VersionRow]]:
    """Return a group's moves, the oldest first, and its versions."""
    made = select(moves.c.name, moves.c.action, moves.c.key).where(moves.c.fleet == group).order_by(moves.c.id)
    columns = (versions.c.key, versions.c.digest, versions.c.contents, versions.c.settings)
    known = select(*columns).where(versions.c.fleet == group).order_by(versions.c.first_loaded)
    return (
        [(name, action, key) for name, action, key in connection.execute(made)],
        [(key, digest, contents, settings) for key, digest, contents, settings in connection.execute(known)],
    )


def write_fleet(
    connection: Connection, group: str, new_moves: Sequence[MoveRow], new_versions: Sequence[VersionRow]
) -> None:
    """Add moves, and versions that are not there yet; the settings of those that are become the newer ones."""
    now = datetime.now(UTC)
    for key, digest, contents, settings in new_versions:
        this = (versions.c.fleet == group) & (versions.c.key == key)
        changed = connection.execute(versions.update().where(this).values(settings=settings, contents=contents))
        if not changed.rowcount:
            row = {"fleet": group, "key": key, "digest": digest, "contents": contents, "settings": settings}
            connection.execute(insert(versions).values(first_loaded=now, **row))
    rows = [
        {"fleet": group, "moved": now, "name": name, "action": action, "key": key} for name, action, key in new_moves
    ]
    if rows:
        connection.execute(insert(moves), rows)
