"""The sections that have flags too: their fields, bounds and help are those of the flags, so there is one list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, FilePath, create_model

from ..cli.flags import EngineFlags, bounds_of
from ..cli.serve import LimitFlags, ServerFlags


class Section(BaseModel):
    """A part of the configuration. A field that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def section_of(name: str, flags: Any, doc: str, *, leave_out: Iterable[str] = ()) -> Any:
    """Return the model that has a field for each flag."""
    hints = get_type_hints(flags, include_extras=True)
    members: dict[str, Any] = {
        each.name: _field(each, hints[each.name]) for each in fields(flags) if each.name not in set(leave_out)
    }
    return create_model(name, __base__=Section, __doc__=doc, **members)


def _field(declared: Any, hint: Any) -> tuple[Any, Any]:
    kind, option = get_args(hint)
    if option.exists:
        kind = FilePath | None
    more: dict[str, Any] = {"description": option.help, **bounds_of(option)}
    if declared.default is MISSING:
        return kind, Field(default_factory=declared.default_factory, **more)
    return Annotated[kind, Field(**more)], declared.default


ServerSection = section_of("ServerSection", ServerFlags, "How HTTP is served.", leave_out=["served_model_name"])
LimitsSection = section_of("LimitsSection", LimitFlags, "What is too much. Times are in seconds; 0 takes one off.")


class EngineSection(section_of("_EngineSection", EngineFlags, "", leave_out=["no_prefix_caching", "option"])):  # type: ignore[misc]
    """What runs the models."""

    prefix_caching: bool = Field(default=True, description="Compute what prompts have in common once.")
    options: dict[str, str] = Field(default_factory=dict, description="Settings of the backend's own.")
