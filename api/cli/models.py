"""`isotoken models`: what can be run without a download, and `pull` for what needs one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .fleet import COMMANDS

models = typer.Typer(
    help="List the models at hand, pull one from the Hugging Face hub, or change those of a running server.",
    invoke_without_command=True,
    rich_markup_mode="rich",
)


@models.callback()
def list_models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="As JSON, for programs.")] = False,
) -> None:
    """List the models that can be served without the network: built-in ones, and those of the Hugging Face cache.

    Any folder in Hugging Face layout can be served too: `isotoken serve ./folder`.
    """
    if context.invoked_subcommand is not None:
        return
    from ..models import DEFAULT_MODEL, list_models  # noqa: PLC0415  (each command imports what it needs)

    found = list(list_models())
    if as_json:
        keys = ("name", "path", "source", "num_bytes")
        typer.echo(json.dumps([{key: str(getattr(model, key)) for key in keys} for model in found], indent=2))
        return
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        note = "  (served when none is named)" if model.name == DEFAULT_MODEL else ""
        typer.echo(f"{model.name:<{width}}  {model.source:<8}  {_size(model.num_bytes):>8}  {_short(model.path)}{note}")


@models.command()
def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Such as owner/name, or owner/name@revision.")],
) -> None:
    """Download a model from the Hugging Face hub into its cache, and print its folder."""
    from ..models import pull_model  # noqa: PLC0415

    typer.echo(pull_model(repo))


for _command in COMMANDS:
    models.command(rich_help_panel="On a running server")(_command)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _short(path: Path) -> str:
    home = Path.home()
    return str("~" / path.relative_to(home)) if path.is_relative_to(home) else str(path)
