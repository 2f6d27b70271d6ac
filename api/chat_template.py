"""Chat templates: a conversation to a prompt, in a sandbox, with the names that published templates rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import ParameterError
from .template_budget import BudgetedEnvironment
from .template_shape import is_plain

CUT = "\N{INVISIBLE SEPARATOR}cut here\N{INVISIBLE SEPARATOR}"  # marks the end of a message that is to be continued

Message = Mapping[str, Any]
E = TypeVar("E", bound=ImmutableSandboxedEnvironment)


class ChatTemplate:
    """One compiled template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile it. Raises ParameterError when it is no valid template."""
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._budget = _equipped(BudgetedEnvironment(**_SETTINGS))
        self._budget.open_budget()
        try:
            plain = _equipped(ImmutableSandboxedEnvironment(**_SETTINGS))
            self._budgeted = self._budget.from_string(source)
            self._plain = plain.from_string(source) if is_plain(source, plain.parse(source)) else None
        except (jinja2.TemplateError, RecursionError) as error:
            raise ParameterError("chat_template", source, f"a valid Jinja template ({error})") from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt. Raises ParameterError for messages that the template refuses."""
        conversation = [_plain(i, message) for i, message in enumerate(messages)]
        if not conversation:
            raise ParameterError("messages", [], "at least one message")
        if continue_final_message:
            if add_generation_prompt:
                raise ParameterError("continue_final_message", True, "not together with add_generation_prompt")
            if not isinstance(conversation[-1].get("content"), str):
                raise ParameterError("continue_final_message", True, "a final message that has text")
            conversation[-1]["content"] += CUT + " "
        variables: dict[str, Any] = {"tools": None, "documents": None, **self._special_tokens}
        variables |= {"messages": conversation, "add_generation_prompt": add_generation_prompt}
        template = self._plain
        if template is None or template_kwargs:  # whose values may be long, and stand beside each message
            template = self._budgeted
            self._budget.open_budget(_num_characters(conversation), len(conversation))
        try:
            prompt = template.render(**{**(template_kwargs or {}), **_given(variables, template_kwargs)})
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise ParameterError("messages", messages, f"what the model's chat template takes ({error})") from error
        return _before_cut(prompt, messages) if continue_final_message else prompt


def _given(variables: dict[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Let the caller override everything but the conversation itself."""
    fixed = ("messages", "add_generation_prompt")
    return {name: value for name, value in variables.items() if name in fixed or name not in (overrides or {})}


def _before_cut(prompt: str, messages: Sequence[Message]) -> str:
    head, found, tail = prompt.rpartition(CUT)
    if not found:
        raise ParameterError(
            "continue_final_message", messages[-1], "a message that the chat template repeats as it is"
        )
    return head if tail.startswith(" ") else head.rstrip()  # a template that trims messages would trim this one too


def _plain(index: int, message: Message) -> dict[str, Any]:
    """Return a message with its text parts joined and its tool calls' arguments as objects, which templates expect."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ParameterError(f"messages[{index}]", message, "an object with a role and a content")
    plain = dict(message)
    content = plain.get("content")
    if isinstance(content, list | tuple):
        plain["content"] = "\n".join(_text(index, part) for part in content)
    elif content is not None and not isinstance(content, str):
        raise ParameterError(f"messages[{index}].content", content, "a string, or a list of text parts")
    calls = plain.get("tool_calls")
    if calls and not isinstance(calls, list | tuple):
        raise ParameterError(f"messages[{index}].tool_calls", calls, "a list")
    if calls:
        plain["tool_calls"] = [_tool_call(call) for call in calls]
    return plain


def _text(index: int, part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise ParameterError(f"messages[{index}].content", part, "text parts: this model reads no images or sound")


def _tool_call(call: Any) -> Any:
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return call
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"])
            if "\\u" in call["function"]["arguments"]:
                json.dumps(function["arguments"], ensure_ascii=False).encode()  # no tokenizer takes half a character
        except ValueError as error:
            raise ParameterError("tool_calls", function["arguments"], "arguments in JSON") from error
    return {**call, "function": function}


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`: marks what the assistant says, for training; here its body only."""

    tags = {"generation"}  # noqa: RUF012  (as jinja2 declares it)

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _num_characters(conversation: Sequence[Message]) -> int:
    return sum(len(each) for message in conversation for each in message.values() if isinstance(each, str))


_SETTINGS: dict[str, Any] = {
    "trim_blocks": True,
    "lstrip_blocks": True,
    "extensions": (_Generation, loopcontrols),
}


def _equipped(environment: E) -> E:
    """Add what published templates call."""
    if isinstance(environment, BudgetedEnvironment):
        environment.add_filter("tojson", _tojson)
    else:
        environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if indent is not None and not 0 <= indent <= 16:
        raise ValueError("tojson: indent is 0 to 16")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
