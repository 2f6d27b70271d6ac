"""`isotoken backup` and `isotoken restore`: everything that is not weights, in one file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .database import ConfigOption, DatabaseOption, opened, settings_of

if TYPE_CHECKING:
    from ..backup.archive import Manifest

JournalOption = Annotated[
    Path | None,
    typer.Option("--journal", metavar="FOLDER", help="Of the ledger's journal. None: the configuration's."),
]


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write, such as isotoken.backup.")],
    journal: JournalOption = None,
    config_file: ConfigOption = None,
    database: DatabaseOption = "",
    force: Annotated[bool, typer.Option("--force", metavar="", help="Replace FILE.")] = False,
) -> None:
    """Write keys, usage, models and their names, and the configuration to FILE, while servers go on.

    The file is checked after it was written. It is readable by you alone: keep it as you keep passwords.
    """
    from ..backup.make import make_backup  # noqa: PLC0415  (sqlalchemy: only for this)

    began = time.perf_counter()
    store_settings, _ = settings_of(config_file, database)
    folder = _journal(journal, config_file, database)
    with opened(store_settings) as store:
        manifest = make_backup(file, store, journal=folder, configuration=config_file, force=force)
        name = store.name
    size = file.stat().st_size
    typer.echo(f"backed up {name}: {_contents(manifest)}, {size:,} bytes in {time.perf_counter() - began:.2f} s")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="That `isotoken backup` wrote.", exists=True)],
    journal: JournalOption = None,
    config_to: Annotated[
        Path | None, typer.Option("--config-to", metavar="FILE", help="Write the configuration in it there.")
    ] = None,
    config_file: ConfigOption = None,
    database: DatabaseOption = "",
    force: Annotated[bool, typer.Option("--force", metavar="", help="Replace what is there.")] = False,
) -> None:
    """Put a backup into a database, which may be of another kind than it came from. Stop its servers first.

    All of it or nothing is restored. Requests that ended after the backup come back from the journal, where that is
    still there, when the server starts.
    """
    from ..backup.restore import restore_backup  # noqa: PLC0415

    began = time.perf_counter()
    store_settings, _ = settings_of(config_file, database)
    folder = _journal(journal, config_file, database)
    with opened(store_settings, prepare=False) as store:
        manifest = restore_backup(file, store, journal=folder, configuration_to=config_to, force=force)
        name = store.name
    typer.echo(
        f"restored {name} as of {manifest.created}: {_contents(manifest)}, in {time.perf_counter() - began:.2f} s"
    )
    if config_to is None and any(name.startswith("configuration") for name in manifest.members):
        typer.echo("the configuration in it was left alone: --config-to FILE writes it")


def _journal(folder: Path | None, config_file: Path | None, database: str) -> Path | None:
    """Return the ledger's folder, where there is one."""
    from ..store.settings import data_folder  # noqa: PLC0415

    if folder is not None:
        return folder
    _, ledger = settings_of(config_file, database)
    found = ledger.folder or data_folder() / "ledger"
    return found if found.is_dir() else None


def _contents(manifest: Manifest) -> str:
    members = manifest.members
    tables = [member for name, member in members.items() if name.startswith("tables/")]
    rows = sum(member.rows for member in tables)
    waiting = members["journal.jsonl"].rows
    return f"{rows:,} rows of {len(tables)} tables" + (f" and {waiting:,} entries of the journal" if waiting else "")
