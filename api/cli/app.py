"""The `isotoken` command: its commands, and how their errors are told."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from .backup import backup, restore
from .bench import bench
from .build import build
from .chat import chat
from .config import config
from .conformance import conformance
from .diff import diff
from .experiments import experiments
from .export import export
from .flags import unfold
from .generate import generate
from .keys import keys
from .models import models
from .new_backend import new_backend
from .plugins import plugins
from .serve import serve
from .store import store
from .tenants import tenants
from .top import top
from .usage import usage

app = typer.Typer(
    name="isotoken",
    help="Serve and run large language models: one serving core, any engine, the same tokens.",
    epilog="First steps: `isotoken serve`, or `isotoken chat`. Both use a small built-in model until you name one.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        typer.echo(f"isotoken {version('isotoken')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Show the traceback of an error (or set ISOTOKEN_DEBUG=1).")
    ] = False,
) -> None:
    if debug:
        os.environ["ISOTOKEN_DEBUG"] = "1"


def _add(command: Callable[..., Any], panel: str, **settings: Any) -> None:
    app.command(rich_help_panel=panel, **settings)(unfold(command))


_add(serve, "Run a model")
_add(generate, "Run a model")
_add(chat, "Run a model")
_add(build, "Run a model")
app.add_typer(models, name="models", rich_help_panel="Look around")
app.add_typer(keys, name="keys", rich_help_panel="Operate")
app.add_typer(tenants, name="tenants", rich_help_panel="Operate")
app.add_typer(usage, name="usage", rich_help_panel="Operate")
app.add_typer(store, name="store", rich_help_panel="Operate")
_add(experiments, "Operate")
_add(backup, "Operate")
_add(restore, "Operate")
_add(plugins, "Look around")
app.add_typer(config, name="config", rich_help_panel="Look around")
_add(top, "Look around")
_add(bench, "Look around")
_add(export, "Look around")
_add(
    conformance,
    "Look around",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
_add(diff, "Look around")
_add(new_backend, "Extend")


_OF_PRODUCTION = ("sqlalchemy", "alembic", "psycopg", "redis")
"""Modules that the extra brings, and that commands of a database import when they need them."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 well, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        result = typer.main.get_command(app).main(arguments, prog_name="isotoken", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # the one place where errors become words
        return _tell(error)
    return result if isinstance(result, int) else 0


def _tell(error: Exception) -> int:
    if os.environ.get("ISOTOKEN_DEBUG"):
        traceback.print_exception(error)
    if (explain := getattr(error, "format_message", None)) is not None:  # a usage error of Typer's
        context = getattr(error, "ctx", None)
        if message := explain():
            typer.echo(f"isotoken: {message}", err=True)
            typer.echo(f"Try: {context.command_path if context else 'isotoken'} --help", err=True)
        return int(getattr(error, "exit_code", 2))
    if _is_users(error):
        typer.echo(f"isotoken: {_message(error)}", err=True)
        return 2 if _is_a(error, "isotoken.api.errors.ParameterError") else 1
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _OF_PRODUCTION:
        typer.echo(f"isotoken: this needs {error.name}: pip install 'isotoken[production]'", err=True)
        return 1
    if not os.environ.get("ISOTOKEN_DEBUG"):
        traceback.print_exception(error)
    typer.echo("isotoken: this is a bug in isotoken or in a plugin; please report it with the traceback", err=True)
    return 1


def _is_users(error: Exception) -> bool:
    """Whether the message was written for the user: ours, and the operating system's."""
    ours = ("isotoken.core.types.IsotokenError", "isotoken.plugins.manager.PluginError")
    return isinstance(error, ValueError | OSError) or _is_a(error, *ours)


def _is_a(error: Exception, *names: str) -> bool:
    """As isinstance, by name: the light commands need not import the classes."""
    return any(f"{each.__module__}.{each.__qualname__}" in names for each in type(error).__mro__)


def _message(error: Exception) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    hint = "; choose another with --port (0: any free one)" if error.errno == errno.EADDRINUSE else ""
    return f"{error.filename}: {error.strerror}" if error.filename is not None else f"{error.strerror}{hint}"
