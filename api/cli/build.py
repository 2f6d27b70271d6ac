"""`isotoken build`: let a compiling backend build its engine ahead of time, so that `serve` starts at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from .flags import EngineFlags, ModelArgument

if TYPE_CHECKING:
    from rich.progress import Progress

OnProgress = Callable[[str, float], None]


def build(engine: EngineFlags, model: ModelArgument) -> None:
    """Build the engine of a compiling backend (tensorrt) ahead of time and keep it.

    `isotoken serve` with the same flags on the same GPU then finds it and starts without the minutes that a build
    takes. Where it is kept is printed; `--option engine_cache=FOLDER` chooses the place.
    """
    config = engine.config(model)
    from ...plugins.build import build_ahead  # noqa: PLC0415  (the engine: only once the arguments are known to be good)
    from ...plugins.manager import Plugins  # noqa: PLC0415

    with _bar() as on_progress:
        kept = build_ahead(config, Plugins.load(), on_progress)
    for reason in kept.reasons:
        typer.echo(reason, err=True)
    typer.echo(str(kept.path))


@contextmanager
def _bar() -> Iterator[OnProgress]:
    """Show a progress bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda phase, share: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _advance(progress)


def _advance(progress: Progress) -> OnProgress:
    task = progress.add_task("Reading the model", total=1.0)

    def advance(phase: str, share: float) -> None:
        progress.update(task, completed=share, description=phase)

    return advance
