"""`isotoken models status, load, unload, ...`: the models of a running server."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from .admin import DEFAULT_URL, KeyOption, UrlOption, ask

_POLL_S = 0.5

WhichArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name, an alias, name@version, or name@ and its first digits.")
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="As JSON, for programs.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", metavar="", help="Do not wait until it is done.")]


def status(url: UrlOption = DEFAULT_URL, key: KeyOption = "", as_json: JsonOption = False) -> None:
    """Show the models of a running server: versions, states, names, memory and requests in hand."""
    told = ask(url, key, "/admin/models")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    rows = [("MODEL", "STATE", "MEMORY", "REQUESTS", "NAMES"), *map(_row, told["models"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for name, stands in told["names"].items():
        if not stands["loaded"]:
            typer.echo(f"{name} stands for {stands['key']}, which is not loaded")
    for model in told["models"]:
        if model["reason"]:
            typer.echo(f"{model['key']}: {model['reason']}")
    memory = told["memory"]
    if memory["budget"]:
        typer.echo(f"memory: {_size(memory['used'])} of {_size(memory['budget'])}, {_size(memory['free'])} free")


def load(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What clients call it.")],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder on the server, a built-in model, or a hub id.")
    ] = "",
    alias: Annotated[list[str], typer.Option(metavar="NAME", help="That is to stand for it too. Repeatable.")] = [],  # noqa: B006
    assign: Annotated[
        list[str], typer.Option("--set", metavar="K=V", help="Such as quantization=int8 or kv_memory=2GiB. Repeatable.")
    ] = [],  # noqa: B006
    no_activate: Annotated[
        bool, typer.Option("--no-activate", metavar="", help="Load it as name@version only: names stay as they are.")
    ] = False,
    no_wait: NoWaitOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Load a model, or a new version of one, while the others serve. Its names stand for it once it is ready.

    The version that they stood for finishes what it has in hand and is unloaded. Should the new one fail, the old one
    serves on.
    """
    body: dict[str, Any] = {"name": name, "model": model, "aliases": alias, "activate": not no_activate}
    told = ask(url, key, "/admin/models/load", body | _settings(assign))
    if not no_wait:
        told = _wait(url, key, name, told["id"])
    typer.echo(f"{told['key']} is {told['state']}")


def unload(
    model: WhichArgument,
    timeout: Annotated[
        float | None, typer.Option(metavar="SEC", help="For requests in hand; then they are cut. None: all they take.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", metavar="", help="Even where aliases stand for it.")] = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Unload a model once its requests are answered."""
    told = ask(url, key, "/admin/models/unload", {"model": model, "timeout": timeout, "force": force})
    typer.echo(f"{told['key']} takes no more requests and goes when its {told['requests']} in hand are answered")


def drain(
    model: WhichArgument,
    resume: Annotated[bool, typer.Option("--resume", metavar="", help="Send requests to it again.")] = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Send a model no new requests; it stays loaded."""
    told = ask(url, key, f"/admin/models/{'resume' if resume else 'drain'}", {"model": model})
    typer.echo(f"{told['key']} is {told['state']}")


def alias(
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="What clients ask for.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What it is to stand for, such as name@version.")] = "",
    remove: Annotated[bool, typer.Option("--remove", metavar="", help="Let it stand for nothing.")] = False,
    no_wait: NoWaitOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Let an alias stand for another version, from one request to the next."""
    if remove == bool(model):
        raise typer.BadParameter("one of MODEL and --remove", param_hint="'MODEL'")
    if remove:
        ask(url, key, "/admin/models/unalias", {"alias": name})
        typer.echo(f"{name} stands for nothing any more")
        return
    told = ask(url, key, "/admin/models/alias", {"alias": name, "target": model})
    _tell_move(url, key, name, told, no_wait)


def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An alias, or a model's name.")],
    no_wait: NoWaitOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Let a name stand for the version before, which is loaded again first where it is not there any more."""
    _tell_move(url, key, name, ask(url, key, "/admin/models/rollback", {"alias": name}), no_wait)


COMMANDS = (status, load, unload, drain, alias, rollback)


def _tell_move(url: str, key: str, name: str, told: dict[str, Any], no_wait: bool) -> None:
    if told["state"] in ("hashing", "loading"):
        if no_wait:
            typer.echo(f"{name} will stand for {told['key']} once that is loaded")
            return
        told = _wait(url, key, told["name"], told["id"])
    typer.echo(f"{name} stands for {told['key']}")


def _wait(url: str, key: str, name: str, number: int) -> dict[str, Any]:
    """Wait until a load has ended, and return the model. Raises ValueError with the reason where it failed."""
    while True:
        told = ask(url, key, "/admin/models")
        found = next((model for model in told["models"] if model["id"] == number), None)
        if found is None:  # it was there already: the same version in the same way
            found = next(
                (model for model in told["models"] if model["key"] == told["names"].get(name, {}).get("key")), None
            )
            if found is None:
                raise ValueError(f"the load of {name} was called off")
            return dict(found)
        if found["state"] == "failed":
            raise ValueError(f"{found['key']} could not be loaded: {found['reason']}")
        if found["state"] not in ("hashing", "loading"):
            return dict(found)
        time.sleep(_POLL_S)


def _settings(assignments: list[str]) -> dict[str, Any]:
    """Read --set: JSON where it is some, else text."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise typer.BadParameter(f"{assignment!r} is not of the form FIELD=VALUE", param_hint="'--set'")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _row(model: dict[str, Any]) -> tuple[str, str, str, str, str]:
    state = model["state"] if "progress" not in model else f"{model['state']} {100 * model['progress']:.0f} %"
    memory = model["memory"]
    size = "" if memory is None else ("about " if memory["estimated"] else "") + _size(memory["total"])
    return model["key"], state, size, str(model["requests"]), ", ".join(model["names"])


def _size(num_bytes: int) -> str:
    from ..fleet.sizes import write_size  # noqa: PLC0415  (pydantic, which the other commands need not)

    return write_size(num_bytes)
