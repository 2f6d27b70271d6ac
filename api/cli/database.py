"""What the commands about the database share: which one, and how to open and close it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import environment_configures

if TYPE_CHECKING:
    from ..ledger.settings import LedgerSettings
    from ..store.database import Store
    from ..store.settings import StoreSettings

DatabaseOption = Annotated[
    str,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="ISOTOKEN_STORE__URL",
        show_envvar=False,
        help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME. Empty: the configuration's.",
    ),
]
KeepTotalsOption = Annotated[
    bool,
    typer.Option("--keep-totals", metavar="", help="Keep the sums for the books, counted for the tenant `deleted`."),
]
YesOption = Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="ISOTOKEN_CONFIG",
        show_envvar=False,
        help="The server's configuration, which names the database.",
    ),
]


def settings_of(config_file: Path | None, database: str) -> tuple[StoreSettings, LedgerSettings]:
    """Return what a configuration and the environment say of the database and the ledger."""
    from ..ledger.settings import LedgerSettings  # noqa: PLC0415  (each command imports what it needs)
    from ..store.settings import StoreSettings  # noqa: PLC0415

    store, ledger = StoreSettings(), LedgerSettings()
    if config_file is not None or environment_configures(os.environ):
        from ..config.load import load  # noqa: PLC0415

        config = load(config_file).config
        store, ledger = config.store, config.ledger
    return (store.model_copy(update={"url": database}) if database else store), ledger


@contextmanager
def opened(settings: StoreSettings, *, prepare: bool = True) -> Iterator[Store]:
    """Open the database, its tables those of this version. Raises StoreError."""
    from ..store import connect  # noqa: PLC0415

    store = connect(settings)
    try:
        if prepare:
            store.prepare_now()
        yield store
    finally:
        store.close_now()
