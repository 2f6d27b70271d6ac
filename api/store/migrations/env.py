"""What Alembic runs: the migrations, on the connection that store.migrate has opened."""

from __future__ import annotations

from alembic import context
from isotoken.api.store import tables as _tables  # noqa: F401  (makes metadata whole)
from isotoken.api.store.metadata import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # all of it or nothing, in SQLite too
    render_as_batch=True,  # SQLite changes a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
