"""`isotoken usage`: what was used, by whom, and what it cost; and what becomes of the records."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .database import ConfigOption, DatabaseOption, KeepTotalsOption, YesOption, opened, settings_of

usage = typer.Typer(
    help="Show what tenants have used and what it cost; remove what need not be kept.",
    invoke_without_command=True,
    rich_markup_mode="rich",
)

_HEADS = {
    "key_id": "key", "requests": "requests", "failed": "failed", "prompt_tokens": "prompt", "cached_tokens": "cached",
    "generated_tokens": "generated", "drafted_tokens": "drafted", "accepted_tokens": "accepted",
}  # fmt: skip


@usage.callback()
def show(
    context: typer.Context,
    by: Annotated[
        str, typer.Option(metavar="FIELDS", help="tenant, key_id, model, version, arm, day, month: one row for each.")
    ] = "tenant,model,day",
    since: Annotated[str, typer.Option(metavar="DAY", help="The first, such as 2030-01-31, in UTC.")] = "",
    until: Annotated[str, typer.Option(metavar="DAY", help="The last.")] = "",
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="This one alone.")] = None,
    key: Annotated[str | None, typer.Option(metavar="ID", help="This key alone.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="This one alone.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", metavar="", help="As CSV, costs exact.")] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="As JSON, costs exact.")] = False,
    config_file: ConfigOption = None,
    database: DatabaseOption = "",
) -> None:
    """Show what was used, from the sums by day. Days are UTC's; a request counts on the day on which it ended."""
    if context.invoked_subcommand is not None:
        return
    from ..ledger import reports  # noqa: PLC0415  (sqlalchemy: only for this)

    store_settings, ledger = settings_of(config_file, database)
    wanted = reports.Wanted(
        by=tuple(name.strip() for name in by.split(",") if name.strip()),
        since=_day(since, "--since"),
        until=_day(until, "--until"),
        tenant=tenant,
        key_id=key,
        model=model,
    )
    with opened(store_settings) as store:
        rows = store.look(partial(reports.usage, wanted=wanted))
    told = [reports.for_people(row) for row in rows]
    if as_json:
        sums = reports.for_people(reports.total(rows))
        typer.echo(json.dumps({"currency": ledger.currency, "data": told, "total": sums}, indent=2))
    elif as_csv:
        _print_csv([*wanted.by, *reports.NUMBERS], told)
    else:
        _print_table(wanted.by, rows, reports.total(rows), ledger.currency)


@usage.command()
def entries(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="This one alone.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many, the newest.", min=1)] = 20,
    config_file: ConfigOption = None,
    database: DatabaseOption = "",
) -> None:
    """Print the newest entries, one request each, as CSV."""
    from ..ledger import reports  # noqa: PLC0415

    store_settings, _ = settings_of(config_file, database)
    with opened(store_settings) as store:
        rows = store.look(partial(reports.entries, tenant=tenant, limit=limit))
    told = [reports.for_people(row) for row in rows]
    _print_csv(reports.ENTRY_FIELDS, told)


@usage.command()
def prune(config_file: ConfigOption = None, database: DatabaseOption = "") -> None:
    """Remove now what is older than ledger.retention says. A server does so by itself, every hour."""
    from ..ledger.retention import Keeper  # noqa: PLC0415

    store_settings, ledger = settings_of(config_file, database)
    with opened(store_settings) as store:
        removed = Keeper(store, ledger.retention).remove_old()
    typer.echo(f"removed {removed.entries} entries and {removed.sums} sums")


@usage.command()
def delete(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose.")],
    keep_totals: KeepTotalsOption = False,
    yes: YesOption = False,
    config_file: ConfigOption = None,
    database: DatabaseOption = "",
) -> None:
    """Remove all that is kept of a tenant's usage: each entry, and the sums by day."""
    from ..ledger.retention import delete_tenant  # noqa: PLC0415

    if not yes:
        typer.confirm(f"Remove all usage of the tenant {tenant}?", abort=True)
    store_settings, _ = settings_of(config_file, database)
    with opened(store_settings) as store:
        removed = delete_tenant(store, tenant, keep_totals=keep_totals)
    kept = f"counted for nobody: {removed.sums}" if keep_totals else f"and {removed.sums} sums"
    typer.echo(f"removed {removed.entries} entries {kept}")


@usage.command()
def replay(
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="Of the journal. None: the server's.")] = None,
    config_file: ConfigOption = None,
    database: DatabaseOption = "",
) -> None:
    """Bring all that a stopped server's journal still has to the database, after that was set back to an earlier day.

    What is there already is not counted again.
    """
    from ..ledger.replay import replay as bring  # noqa: PLC0415
    from ..store.settings import data_folder  # noqa: PLC0415

    store_settings, ledger = settings_of(config_file, database)
    with opened(store_settings) as store:
        result = bring(folder or ledger.folder or data_folder() / "ledger", store)
    typer.echo(f"read {result.read} entries: {result.added} were missing; {result.damaged} lines are damaged")


def _day(text: str, flag: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no day such as 2030-01-31", param_hint=f"'{flag}'") from error


def _print_csv(names: list[str], rows: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)


def _print_table(by: tuple[str, ...], rows: list[dict[str, Any]], sums: dict[str, int], currency: str) -> None:
    from ..ledger.money import shown  # noqa: PLC0415

    numbers = [name for name in _HEADS if name != "key_id"]
    lines = [[*(_HEADS.get(name, name) for name in by), *(_HEADS[name] for name in numbers), f"cost ({currency})"]]
    for row in rows:
        lines.append([*(str(row[name]) for name in by), *(f"{row[n]:,}" for n in numbers), shown(row["cost"])])
    lines.append(["total", *[""] * (len(by) - 1), *(f"{sums[n]:,}" for n in numbers), shown(sums["cost"])])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if place < len(by) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        typer.echo("  ".join(cells).rstrip())
