"""`isotoken tenants`: take a tenant out of everything that is kept."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from .database import ConfigOption, DatabaseOption, KeepTotalsOption, YesOption, opened, settings_of

tenants = typer.Typer(
    help="Take a tenant out of everything that is kept: its keys and its usage.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@tenants.command()
def delete(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Its name.")],
    keep_totals: KeepTotalsOption = False,
    yes: YesOption = False,
    config_file: ConfigOption = None,
    database: DatabaseOption = "",
) -> None:
    """Revoke a tenant's keys, take its name off them, and remove all that is kept of its usage.

    Running servers refuse its keys within a second. What it asks for until then is counted again: run this twice.
    """
    from ..gateway.keys import forget_tenant  # noqa: PLC0415  (each command imports what it needs)
    from ..ledger.retention import delete_tenant  # noqa: PLC0415

    if not yes:
        typer.confirm(f"Revoke all keys of the tenant {tenant} and remove its usage?", abort=True)
    store_settings, _ = settings_of(config_file, database)
    with opened(store_settings) as store:
        num_keys = store.call(partial(forget_tenant, tenant=tenant))
        removed = delete_tenant(store, tenant, keep_totals=keep_totals)
    typer.echo(f"revoked {num_keys} keys, removed {removed.entries} entries and {removed.sums} sums")
