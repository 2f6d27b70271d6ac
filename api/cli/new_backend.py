"""`isotoken new-backend`: write an installable package with a backend that works, for its author to make their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from string import Template
from typing import Annotated

import typer

_FORM = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_RESERVED = frozenset({"auto", "none"})  # words that EngineConfig gives a meaning of their own
_TEMPLATE = "backend_template"
_SUFFIX = ".tmpl"


def new_backend(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Its name: small letters and digits, parts joined by - or _."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write; new or empty. [./isotoken-NAME]", show_default=False),
    ] = None,
) -> None:
    """Write an installable package with a small backend that works, to be made into one of your own.

    It passes the contract tests of the conformance suite as it is; docs/writing-a-backend.md leads on from there.
    """
    check_name(name)
    folder = out if out is not None else Path(f"isotoken-{name}")
    paths = write_package(name, folder)
    typer.echo(f"{folder}: {len(paths)} files", err=True)
    for path in paths:
        typer.echo(folder / path)
    typer.echo(
        f"\nNext:\n  cd {folder}\n  pip install -e '.[test]'\n"
        f"  isotoken conformance --backend {name} -k test_contract\n"
        "docs/writing-a-backend.md goes on from there.",
        err=True,
    )


def check_name(name: str) -> None:
    """Raise ValueError for a name that cannot be a backend's, a package's and a module's, or that is taken."""
    if not _FORM.fullmatch(name):
        meant = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f"; {meant} would do" if _FORM.fullmatch(meant) else ""
        raise ValueError(
            f"{name!r} cannot be a backend's name: expected a small letter, then small letters and digits, "
            f"parts joined by single - or _{hint}"
        )
    if name in _RESERVED:
        raise ValueError(f"{name!r} cannot be a backend's name: isotoken gives the word another meaning")
    from ...plugins.manager import Plugins  # noqa: PLC0415  (the help needs no plugins)

    installed = Plugins.load().backends
    if name in installed:
        owners = installed.conflicts().get(name) or [installed[name]]
        distributions = " and ".join(owner.distribution for owner in owners)
        raise ValueError(f"there is a backend {name!r} already, of {distributions}: choose another name")
    if find_spec(_module(name)) is not None:
        raise ValueError(f"there is a package {_module(name)} already: choose another name")


def write_package(name: str, folder: Path) -> list[PurePosixPath]:
    """Write the package into a new or empty folder; return the paths of its files in it. Raises ValueError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise ValueError(f"{folder} {what}, and nothing is overwritten: choose another folder with --out")
    rendered = dict(sorted(render(name)))
    for path, text in rendered.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return list(rendered)


def render(name: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield path and text of each file of the package."""
    from ...plugins.hookspecs import API_VERSION  # noqa: PLC0415

    module = _module(name)
    words = {
        "name": name,
        "module": module,
        "distribution": f"isotoken-{name}",
        "api": API_VERSION,
        "isotoken": ".".join(version("isotoken").split(".")[:2]),
    }
    for path, template in _templates(files(__package__) / _TEMPLATE, PurePosixPath()):
        parts = [module if part == "package" else part for part in path.parts]
        last = parts.pop().removesuffix(_SUFFIX)
        yield PurePosixPath(*parts, ".gitignore" if last == "gitignore" else last), Template(template).substitute(words)


def _module(name: str) -> str:
    return f"isotoken_{name.replace('-', '_')}"


def _templates(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, path / entry.name)
        elif entry.name.endswith(_SUFFIX):
            yield path / entry.name, entry.read_text(encoding="utf-8")
