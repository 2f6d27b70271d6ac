"""Offer: the functions that one request offers, and which of them may, or must, be called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ParameterError
from .formats import Part, ToolFormat
from .parsers import Parser

MAX_TOOLS = 128
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_CHOICES = 'none, auto, required, {"type": "function", "function": {"name": ...}} or {"type": "allowed_tools", ...}'

Mode = Literal["auto", "required"]


@dataclass(frozen=True, slots=True)
class Tool:
    """One function."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # a JSON schema
    strict: bool  # refuse schemas that cannot be enforced

    def grammar(self) -> Part:
        """Return the grammar of its arguments."""
        return {"type": "json", "schema": self.parameters, "lenient": not self.strict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What may be called. A request without tools, or with tool_choice "none", has none."""

    given: Sequence[Mapping[str, Any]]  # as the client has it, for the chat template
    tools: Mapping[str, Tool]  # those that may be called, by name
    mode: Mode
    parallel: bool  # several calls in one answer
    format: ToolFormat

    def parser(self) -> Parser:
        """Return a parser for one answer."""
        return self.format.parser(frozenset(self.tools))

    @property
    def is_required(self) -> bool:
        """Whether the answer must be calls."""
        return self.mode == "required"

    def calls(self, special: Mapping[str, int]) -> Part:
        """Return the grammar of calls. `special`: the ids of the markers that no text spells, by name."""
        own = {marker: special[marker] for marker in self.format.markers if marker in special}
        grammars = {name: tool.grammar() for name, tool in self.tools.items()}
        return self.format.grammar(grammars, own, most=None if self.parallel else 1)


def read_offer(tools: Sequence[Mapping[str, Any]], choice: Any, *, parallel: bool, form: ToolFormat) -> Offer | None:
    """Return what a request offers; None where nothing may be called. Raises ParameterError."""
    known = _tools(tools)
    if choice is None:
        choice = "auto" if known else "none"
    if choice == "none":
        return None
    if not known:
        if choice == "auto":
            return None
        raise ParameterError("tool_choice", choice, "none, where no tools are given")
    if choice in ("auto", "required"):
        return Offer(given=tools, tools=known, mode=choice, parallel=parallel, format=form)
    if not isinstance(choice, Mapping):
        raise ParameterError("tool_choice", choice, _CHOICES)
    if choice.get("type") == "function":
        name = _name_in(choice, known)
        return Offer(given=tools, tools={name: known[name]}, mode="required", parallel=False, format=form)
    if choice.get("type") == "allowed_tools":
        mode, allowed = _allowed(choice, known)
        return Offer(given=tools, tools=allowed, mode=mode, parallel=parallel, format=form)
    raise ParameterError("tool_choice", choice, _CHOICES)


def _tools(given: Sequence[Mapping[str, Any]]) -> dict[str, Tool]:
    if len(given) > MAX_TOOLS:
        raise ParameterError("tools", len(given), f"at most {MAX_TOOLS}")
    tools: dict[str, Tool] = {}
    for index, entry in enumerate(given):
        tool = _tool(f"tools[{index}]", entry)
        if tool.name in tools:
            raise ParameterError(f"tools[{index}].function.name", tool.name, "a name that no other tool has")
        tools[tool.name] = tool
    return tools


def _tool(field: str, entry: Any) -> Tool:
    function = entry.get("function") if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or entry.get("type", "function") != "function":
        raise ParameterError(field, entry, 'a tool of type "function", with a function')
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ParameterError(f"{field}.function.name", name, "1 to 64 letters, digits, underscores, dots or dashes")
    parameters = function.get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, Mapping):
        raise ParameterError(f"{field}.function.parameters", parameters, "a JSON schema")
    return Tool(name, str(function.get("description") or ""), parameters, function.get("strict") is True)


def _name_in(choice: Mapping[str, Any], known: Mapping[str, Tool]) -> str:
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
    if not isinstance(name, str) or name not in known:
        raise ParameterError("tool_choice", name, f"one of the tools: {', '.join(known)}")
    return name


def _allowed(choice: Mapping[str, Any], known: Mapping[str, Tool]) -> tuple[Mode, dict[str, Tool]]:
    inner = choice.get("allowed_tools", choice)
    mode, listed = inner.get("mode", "auto"), inner.get("tools")
    if mode not in ("auto", "required") or not isinstance(listed, list) or not listed:
        raise ParameterError("tool_choice", choice, 'a mode of "auto" or "required", and tools')
    names = [_name_in(entry, known) if isinstance(entry, Mapping) else "" for entry in listed]
    if "" in names:
        raise ParameterError("tool_choice", choice, "tools with names")
    return mode, {name: known[name] for name in names}
