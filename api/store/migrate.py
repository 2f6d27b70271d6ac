"""Bring a database's tables to this version of isotoken, and tell where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, select, text

from . import tables as _tables  # noqa: F401  (makes metadata whole)
from .errors import StoreError
from .metadata import metadata

if TYPE_CHECKING:
    from .database import Store

NOTHING = "nothing"
"""What the version of a database is called that has no tables yet."""

_LOCK = 0x150_70_6E  # of PostgreSQL's advisory locks: two servers that start together migrate one after the other


def prepare(store: Store) -> None:
    """Bring the tables up to date, or check that they are where `store.migrate` is off. Raises StoreError."""
    found, newest = store.look(_version), head()
    if found == newest:
        return
    if not store.settings.migrate:
        raise StoreError(
            f"the tables of {store.name} are those of {found}, this isotoken needs {newest}: "
            "run `isotoken store upgrade`"
        )
    upgrade(store)


def upgrade(store: Store) -> tuple[str, str]:
    """Bring the tables up to date. Returns the versions before and after. Raises StoreError for a newer database."""
    return store.call(_upgrade), head()


def status(store: Store) -> dict[str, Any]:
    """Return where a database stands: its version, and how many rows each table has."""
    version, rows = store.look(_look)
    newest = head()
    state = f"{version}, up to date" if version == newest else f"{version}; this isotoken has {newest}"
    return {"database": store.name, "version": version, "newest": newest, "state": state, "rows": rows}


def bring_to(connection: Connection, version: str) -> None:
    """Bring the tables up to a version, in the connection's transaction."""
    command.upgrade(config_for(connection), version)


def is_known(version: str) -> bool:
    """Whether this isotoken knows how to bring tables up from a version."""
    return version in {script.revision for script in _scripts().walk_revisions()}


def head() -> str:
    """Return the version of the tables that this isotoken has."""
    newest = _scripts().get_current_head()
    assert newest is not None
    return newest


def config_for(connection: Connection | None = None) -> Config:
    """Return what Alembic wants to know, to work on a connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(config_for())


def _version(connection: Connection) -> str:
    """Return the version of the tables that are there. Raises StoreError for one from the future."""
    found = MigrationContext.configure(connection).get_current_revision() or NOTHING
    if found != NOTHING and not is_known(found):
        raise StoreError(
            f"the database is from a newer isotoken (its tables are those of {found}): "
            "update isotoken, or restore a backup from before the update"
        )
    return found


def _upgrade(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    before = _version(connection)
    bring_to(connection, "head")
    return before


def _look(connection: Connection) -> tuple[str, dict[str, int]]:
    present = set(inspect(connection).get_table_names())
    names = sorted(name for name in metadata.tables if name in present)
    counts = {name: select(func.count()).select_from(metadata.tables[name]) for name in names}
    return _version(connection), {name: connection.execute(query).scalar_one() for name, query in counts.items()}
