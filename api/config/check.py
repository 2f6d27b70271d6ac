"""check: everything about a configuration that can be found out without starting a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ModelNotFound
from ..models import resolve_model
from ..safety.settings import SafetySettings
from .load import Loaded, load
from .problems import ConfigError, Problem, dotted, near
from .walk import leaves


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
    yield from _unknown_models(loaded)
    yield from _filters(loaded)


def _filters(loaded: Loaded) -> Iterator[Problem]:
    """Yield the first filter that cannot be made: what options there are, each filter knows for itself."""
    if loaded.config.safety == SafetySettings():
        return
    from ...plugins.manager import Plugins  # noqa: PLC0415
    from ..safety.safety import FilterError, open_safety  # noqa: PLC0415

    try:
        open_safety(loaded.config.safety, Plugins.load())
    except FilterError as error:
        path = ("safety", *error.place)
        yield Problem(loaded.origin((*path, "filter")), f"{dotted(path)}: {error.reason}")


def _unknown_models(loaded: Loaded) -> Iterator[Problem]:
    """Yield what routing sends requests to and is not served."""
    served = [name for model in loaded.config.models for name in (model.name, *model.aliases)]
    for path, value in leaves(loaded.config.routing.model_dump()):
        asked_for = path[-1] == "model" and "arms" not in path  # a name of its own, for clients
        is_model = path[-1] in ("model", "cheap", "strong", "target") or "candidates" in path
        if is_model and not asked_for and str(value).partition("@")[0] not in served:
            where = ("routing", *path)
            yield Problem(loaded.origin(where), f"{dotted(where)}: {value!r} is no served model{near(value, served)}")
