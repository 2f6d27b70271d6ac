"""`isotoken store`: which database there is, and its tables brought up to this version."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .database import ConfigOption, DatabaseOption, opened, settings_of

store = typer.Typer(
    help="Look at the database of keys, usage and models, or bring its tables up to this version.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@store.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="As JSON, for programs.")] = False,
    config_file: ConfigOption = None,
    database: DatabaseOption = "",
) -> None:
    """Show the database, the version of its tables, and how many rows each has."""
    from ..store.migrate import status as look  # noqa: PLC0415  (sqlalchemy: only for this)

    settings, _ = settings_of(config_file, database)
    with opened(settings, prepare=False) as opened_store:
        found = look(opened_store)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"database  {found['database']}\ntables    {found['state']}")
    for name, count in found["rows"].items():
        typer.echo(f"  {name:<24} {count:>12,} rows")


@store.command()
def upgrade(config_file: ConfigOption = None, database: DatabaseOption = "") -> None:
    """Bring the tables up to this version. A server does so by itself when it starts, unless store.migrate is false."""
    from ..store.migrate import upgrade as bring  # noqa: PLC0415

    settings, _ = settings_of(config_file, database)
    with opened(settings, prepare=False) as opened_store:
        before, after = bring(opened_store)
    typer.echo(f"the tables are those of {after}" + ("" if before == after else f" now; they were those of {before}"))
