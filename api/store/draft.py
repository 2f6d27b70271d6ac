"""Draft the next migration from what the tables say: `python -m isotoken.api.store.draft "what changes"`.

For developers: it compares the tables with what the migrations make, and writes a module that you then read and mend.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import Connection

from . import StoreSettings, connect
from .migrate import config_for, head


def draft(message: str, folder: Path | None = None) -> Path:
    """Write the module, into `folder` where one is given, and return its path."""

    def write(connection: Connection) -> Any:
        config = config_for(connection)
        if folder is not None:
            own = Path(__file__).parent / "migrations" / "versions"
            config.set_main_option("version_locations", f"{own}{os.pathsep}{folder}")
            config.set_main_option("path_separator", "os")
        path = None if folder is None else str(folder)
        rev_id = f"{int(head()) + 1:04d}"
        return command.revision(config, message, autogenerate=True, rev_id=rev_id, version_path=path)

    with tempfile.TemporaryDirectory() as scratch:
        store = connect(StoreSettings(url=f"sqlite:///{scratch}/empty.db"))
        store.prepare_now()
        try:
            written = store.call(write)
        finally:
            store.close_now()
    return Path(written.path)


if __name__ == "__main__":
    print(draft(" ".join(sys.argv[1:]) or "changes"))
