"""What Alembic runs: the migrations, on the connection that store.migrate has opened."""

from __future__ import annotations

from typing import Literal

from alembic import context
from isotoken.api.store import tables as _tables  # noqa: F401  (makes metadata whole)
from isotoken.api.store.metadata import Id, Timestamp, metadata


def render(kind: str, item: object, _: object) -> str | Literal[False]:
    """Write our column types in SQLAlchemy's own words: a migration must not change when ours do."""
    if kind != "type" or not (isinstance(item, Timestamp) or item is Id):
        return False
    return "sa.DateTime(timezone=True)" if item is not Id else 'sa.BigInteger().with_variant(sa.Integer(), "sqlite")'


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=render,
    transactional_ddl=True,  # all of it or nothing, in SQLite too
    render_as_batch=True,  # SQLite changes a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
