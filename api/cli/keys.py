"""`isotoken keys`: make, list, look at and revoke the API keys in the store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .database import ConfigOption, DatabaseOption, opened, settings_of

if TYPE_CHECKING:
    from ..gateway.keys import Key, KeyRequest
    from ..store.database import Store

T = TypeVar("T")

keys = typer.Typer(
    help="Make, list, look at and revoke API keys. `isotoken serve --set gateway.authenticator=keys` asks for them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="As JSON, for programs.")]
KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="Such as key_0123456789abcdef: not the key itself.")]


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose it is.")] = "default",
    name: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    model: Annotated[list[str], typer.Option(metavar="NAME", help="It may ask for. Repeatable. None: all.")] = [],  # noqa: B006
    route: Annotated[
        list[str], typer.Option(metavar="PATH", help="It is good for, such as /v1/*. Repeatable. None: all.")
    ] = [],  # noqa: B006
    expires: Annotated[str, typer.Option(metavar="WHEN", help="90d, 12h, or 2030-01-31. Empty: never.")] = "",
    requests_per_minute: Annotated[int | None, typer.Option(metavar="N", help="Beyond: 429.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(metavar="N", help="Prompt and output.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(metavar="N", help="Requests at once.")] = None,
    max_context: Annotated[int | None, typer.Option(metavar="N", help="Tokens, prompt and output.")] = None,
    max_output: Annotated[int | None, typer.Option(metavar="N", help="Tokens of an answer.")] = None,
    priority: Annotated[int, typer.Option(metavar="N", help="Lower runs first.")] = 0,
    weight: Annotated[float, typer.Option(metavar="W", help="Share beside other tenants.")] = 1.0,
    admin: Annotated[bool, typer.Option("--admin", metavar="", help="It may use /admin.")] = False,
    database: DatabaseOption = "",
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown this once: only a hash of it is kept."""
    from ..gateway.keys import KeyRequest, create_key  # noqa: PLC0415  (each command imports what it needs)
    from ..gateway.principal import KeyLimits  # noqa: PLC0415

    asked: KeyRequest = KeyRequest(
        tenant=tenant,
        name=name,
        models=tuple(model) or None,
        routes=tuple(route) or None,
        is_admin=admin,
        limits=KeyLimits(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_concurrency=max_concurrency,
            max_context=max_context,
            max_output=max_output,
        ),
        priority=priority,
        weight=weight,
        expires=_moment(expires),
    )
    secret, key = _with_store(
        config_file, database, lambda store: store.call(lambda connection: create_key(connection, asked))
    )
    if as_json:
        typer.echo(json.dumps({"key": secret, **key.shown()}, indent=2))
        return
    typer.echo(secret)
    typer.echo(f"{key.id} of tenant {tenant}: this is the only time that the key is shown", err=True)


@keys.command("list")
def list_all(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this tenant.")] = None,
    active: Annotated[bool, typer.Option("--active", metavar="", help="Only those that are good now.")] = False,
    database: DatabaseOption = "",
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys: what is kept of them."""
    from ..gateway.keys import list_keys  # noqa: PLC0415

    found = _with_store(
        config_file,
        database,
        lambda store: store.look(lambda connection: list_keys(connection, tenant, all_states=not active)),
    )
    if as_json:
        typer.echo(json.dumps([key.shown() for key in found], indent=2))
        return
    rows = [("ID", "KEY", "STATE", "TENANT", "NAME", "EXPIRES"), *(_row(key) for key in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@keys.command()
def show(
    key_id: KeyArgument, database: DatabaseOption = "", config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show what is kept of a key."""
    from ..gateway.keys import find_key  # noqa: PLC0415

    _tell(
        _with_store(config_file, database, lambda store: store.look(lambda connection: find_key(connection, key_id))),
        as_json,
    )


@keys.command()
def revoke(
    key_id: KeyArgument, database: DatabaseOption = "", config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Make a key good for nothing, for ever. Running servers refuse it within seconds."""
    from ..gateway.keys import revoke_key  # noqa: PLC0415

    _tell(
        _with_store(config_file, database, lambda store: store.call(lambda connection: revoke_key(connection, key_id))),
        as_json,
    )


def _with_store(config_file: Path | None, database: str, work: Callable[[Store], T]) -> T:
    with opened(settings_of(config_file, database)[0]) as store:
        return work(store)


def _moment(text: str) -> datetime | None:
    """Read a time to come: a span such as 90d, or a date. Raises BadParameter."""
    if not text:
        return None
    now, hint = datetime.now(UTC), "'--expires'"
    try:
        if span := re.fullmatch(r"(\d{1,6})([smhdw])", text):
            return now + timedelta(seconds=int(span[1]) * _UNITS[span[2]])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no time: write 90d, 12h or 2030-01-31", param_hint=hint) from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if moment <= now:
        raise typer.BadParameter(f"{text!r} is over: such a key would never be good", param_hint=hint)
    return moment


def _tell(key: Key, as_json: bool) -> None:
    shown: dict[str, Any] = key.shown()
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for name, value in shown.items():
        typer.echo(f"{name:<10}{'all' if value is None and name in ('models', 'routes') else _plain(value)}")


def _plain(value: Any) -> str:
    match value:
        case None:
            return "-"
        case list():
            return ", ".join(value)
        case dict():
            return ", ".join(f"{name}={each}" for name, each in value.items()) or "-"
    return str(value)


def _row(key: Key) -> tuple[str, ...]:
    asked = key.request
    expires = "never" if asked.expires is None else asked.expires.strftime("%Y-%m-%d %H:%M")
    return key.id, key.hint, key.state, asked.tenant, asked.name or "-", expires
