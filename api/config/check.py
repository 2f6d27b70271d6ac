"""check: everything about a configuration that can be found out without starting a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ModelNotFound
from ..models import resolve_model
from .load import Loaded, load
from .problems import ConfigError, Problem, dotted


def check(file: Path, assignments: Sequence[str] = ()) -> str:
    """Return one line that says what is well. Raises ConfigError with every problem."""
    loaded = load(file, assignments=assignments)
    if problems := list(_problems(loaded)):
        raise ConfigError(problems)
    num_given = len(loaded.origins)
    names = ", ".join(model.name for model in loaded.config.models)
    return (
        f"{file}: a good configuration ({num_given} values given, the others by default; models: {names or 'built in'})"
    )


def _problems(loaded: Loaded) -> Iterator[Problem]:
    """Yield what the values' types cannot tell: models that are not there, files that cannot be read."""
    for i, model in enumerate(loaded.config.models):
        try:
            resolve_model(model.source, download=False)
        except ModelNotFound as error:
            path = ("models", i, "model" if model.model else "name")
            yield Problem(loaded.origin(path), f"{dotted(path)}: {error}")
