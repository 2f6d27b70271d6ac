"""`isotoken config`: check a configuration, show what it comes to, and describe its form for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

config = typer.Typer(
    help="Check a configuration file, show what it comes to, or print its schema.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="In YAML, TOML or JSON.")]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", envvar="ISOTOKEN_CONFIG", show_envvar=False, help="In YAML, TOML or JSON."
    ),
]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Such as server.port=9000. May be repeated.")
]


@config.command()
def check(
    file: FileArgument,
    assignments: SetOption = [],  # noqa: B006  (Typer copies it)
) -> None:
    """Say whether a server would start with this file, and if not every reason, each with its line.

    The environment (ISOTOKEN_SERVER__PORT=...) and --set count too, as they do for `isotoken serve`.
    """
    from ..config.check import check as run  # noqa: PLC0415  (each command imports what it needs)

    typer.echo(run(file, assignments))


@config.command()
def show(
    file: FileOption = None,
    assignments: SetOption = [],  # noqa: B006
    changed: Annotated[bool, typer.Option("--changed", metavar="", help="Only what is not as by default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="A row for each value, for programs.")] = False,
) -> None:
    """Print every value with where it came from. Secrets are hidden."""
    from ..config.load import load  # noqa: PLC0415
    from ..config.show import render, with_origins  # noqa: PLC0415

    loaded = load(file, assignments=assignments)
    text = json.dumps(with_origins(loaded), indent=2) if as_json else render(loaded, changed=changed).rstrip("\n")
    typer.echo(text)


@config.command()
def schema() -> None:
    """Print the JSON schema of a configuration file, with which editors complete and check it."""
    from ..config.schema import Config  # noqa: PLC0415

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))
