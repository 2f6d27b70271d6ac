"""Conversations with tools, for chat templates that know of none: told in words instead."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ParameterError
from .formats import ToolFormat

Message = Mapping[str, Any]

_TELLING = """You may call these functions, described as JSON schemas:
{functions}
To call functions, answer with their names and arguments in this form:
{example}"""
_RESULT = "<tool_response>\n{content}\n</tool_response>"


def knows_tools(chat_template: str) -> bool:
    """Whether a chat template tells the model of tools."""
    return re.search(r"\btools\b", chat_template) is not None


def in_words(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], form: ToolFormat) -> list[dict[str, Any]]:
    """Return a conversation that has no tools in it any more: they, their calls and results have become text."""
    told = [_in_words(index, message, form) for index, message in enumerate(messages)]
    joined: list[dict[str, Any]] = []
    for message, given in zip(told, messages, strict=True):
        if given.get("role") == "tool" and joined and joined[-1].pop("is_result", False):
            joined[-1] |= {"content": f"{joined[-1]['content']}\n{message['content']}", "is_result": True}
        else:
            joined.append(message | ({"is_result": True} if given.get("role") == "tool" else {}))
    for message in joined:
        message.pop("is_result", None)
    if not tools:
        return joined
    telling = _TELLING.format(
        functions="\n".join(json.dumps(tool.get("function"), ensure_ascii=False) for tool in tools),
        example=form.write([("NAME", {})]),
    )
    if joined and joined[0]["role"] == "system":
        joined[0]["content"] = f"{joined[0]['content']}\n\n{telling}"
        return joined
    return [{"role": "system", "content": telling}, *joined]


def _in_words(index: int, message: Message, form: ToolFormat) -> dict[str, Any]:
    plain = {name: value for name, value in message.items() if name not in ("tool_calls", "tool_call_id")}
    content = str(message.get("content") or "")
    if message.get("role") == "tool":
        return plain | {"role": "user", "content": _RESULT.format(content=content)}
    calls = [_function(f"messages[{index}].tool_calls", call) for call in _calls(index, message)]
    if calls:
        written = form.write([(str(call.get("name")), _value(call.get("arguments"))) for call in calls])
        content = f"{content}\n{written}" if content else written
    return plain | {"content": content}


def _calls(index: int, message: Message) -> Sequence[Any]:
    calls = message.get("tool_calls") or ()
    if not isinstance(calls, list | tuple):
        raise ParameterError(f"messages[{index}].tool_calls", calls, "a list")
    return calls


def _function(field: str, call: Any) -> Mapping[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise ParameterError(field, call, "calls of functions")
    return function


def _value(arguments: Any) -> Any:
    """Return arguments as a value; those that are no JSON as the text that they are."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
