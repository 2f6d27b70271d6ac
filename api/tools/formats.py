"""Formats: for each family of models, how its calls are parsed, forced by a grammar, and written again."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .parsers import DeepSeek, Hermes, Llama, Mistral, Parser

Part = dict[str, Any]
"""A grammar, in the words of plugins/grammars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """One way to write calls. A call is `before`, its name, `between`, its arguments, `after`."""

    name: str
    signs: tuple[str, ...]  # a chat template of this format has one of these
    parser: Callable[[Collection[str]], Parser]
    before: str
    between: str
    after: str
    opening: str = ""  # before the first call
    separator: str = ""  # between two calls
    closing: str = ""  # behind the last
    markers: tuple[str, ...] = ()  # that may be special tokens
    id_length: int = 0  # of a call's id; 0: any

    def new_id(self) -> str:
        """Return an id for a call."""
        if not self.id_length:
            return f"call_{secrets.token_hex(12)}"
        letters = string.ascii_letters + string.digits
        return "".join(secrets.choice(letters) for _ in range(self.id_length))

    def write(self, calls: Sequence[tuple[str, Any]]) -> str:
        """Return (name, arguments) pairs as a model of this family would write them."""
        written = [
            f"{self.before}{_inner(name)}{self.between}{_json(arguments)}{self.after}" for name, arguments in calls
        ]
        return self.opening + self.separator.join(written) + self.closing

    def grammar(self, tools: Mapping[str, Part], special: Mapping[str, int], *, most: int | None) -> Part:
        """Return the grammar of at least one call, `most` at most, of tools by name with a grammar for arguments.

        `special`: the ids of the markers that no text spells.
        """
        each = [_sequence([_text(_inner(name) + self.between), arguments]) for name, arguments in tools.items()]
        call = _sequence([*_pieces(self.before, special), _any_of(each), *_pieces(self.after, special)])
        separator = _sequence(_pieces(self.separator, special)) if self.separator else None
        calls: Part = call if most == 1 else {"type": "repeat", "part": call, "separator": separator, "max": most}
        return _sequence([*_pieces(self.opening, special), calls, *_pieces(self.closing, special)])


HERMES = ToolFormat(
    name="hermes",
    signs=("<tool_call>",),
    parser=Hermes,
    before='<tool_call>\n{"name": "',
    between='", "arguments": ',
    after="}\n</tool_call>",
    separator="\n",
    markers=("<tool_call>", "</tool_call>"),
)
LLAMA = ToolFormat(
    name="llama",
    signs=("<|python_tag|>", '"parameters": '),
    parser=Llama,
    before='{"name": "',
    between='", "parameters": ',
    after="}",
    separator="; ",
    markers=("<|python_tag|>",),
)
MISTRAL = ToolFormat(
    name="mistral",
    signs=("[TOOL_CALLS]",),
    parser=Mistral,
    before='{"name": "',
    between='", "arguments": ',
    after="}",
    opening="[TOOL_CALLS][",
    separator=", ",
    closing="]",
    markers=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    id_length=9,
)
DEEPSEEK = ToolFormat(
    name="deepseek",
    signs=("<｜tool▁calls▁begin｜>",),
    parser=DeepSeek,
    before="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    between="\n```json\n",
    after="\n```<｜tool▁call▁end｜>",
    opening="<｜tool▁calls▁begin｜>",
    separator="\n",
    closing="<｜tool▁calls▁end｜>",
    markers=(DeepSeek.OPENING, DeepSeek.CLOSING, DeepSeek.CALL, DeepSeek.SEPARATOR, DeepSeek.END),
)
FORMATS = {each.name: each for each in (HERMES, LLAMA, MISTRAL, DEEPSEEK)}


def format_of(chat_template: str | None) -> ToolFormat:
    """Return the format that a chat template tells its model to write; Hermes for one that tells of none."""
    for each in (DEEPSEEK, MISTRAL, HERMES, LLAMA):
        if chat_template is not None and any(sign in chat_template for sign in each.signs):
            return each
    return HERMES


def _json(value: Any) -> str:
    """Return a value as JSON; one with halves of characters, which UTF-8 has no bytes for, in escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _inner(name: str) -> str:
    """Return a name as it stands between quotes; those of functions need no escapes."""
    return json.dumps(name, ensure_ascii=False)[1:-1]


def _pieces(text: str, special: Mapping[str, int]) -> list[Part]:
    """Return a text's parts: special tokens, and what stands between them."""
    if not special:
        return [_text(text)] if text else []
    pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    return [{"type": "token", "id": special[piece]} if piece in special else _text(piece) for piece in pieces if piece]


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _sequence(parts: list[Part]) -> Part:
    return parts[0] if len(parts) == 1 else {"type": "sequence", "parts": parts}


def _any_of(parts: list[Part]) -> Part:
    return parts[0] if len(parts) == 1 else {"type": "any_of", "parts": parts}
