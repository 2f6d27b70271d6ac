"""Grammars in the words of llguidance: its own JSON for a schema, a pattern or a text; Lark for what has parts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Grammar = Mapping[str, Any]

MAX_PARTS = 4096
WHITESPACE = r" |\n[ \t]{0,32}"
"""Between the parts of JSON: a space, or a new line with its indentation. A model at a loss could go on with more."""


def read_grammar(text: str) -> Grammar:
    """Return a grammar's object. Raises ValueError for what is none."""
    grammar = json.loads(text)
    if not isinstance(grammar, dict) or "type" not in grammar:
        raise ValueError('a grammar is a JSON object with a "type"')
    return grammar


def to_guidance(grammar: Grammar) -> str:
    """Return the grammar as LLMatcher takes it. Raises ValueError for an unknown type, or one in the wrong place."""
    kind = grammar["type"]
    if kind == "json":
        return _whole({"json_schema": _schema(grammar)})
    if kind == "regex":
        return json.dumps({"grammars": [{"lark_grammar": f"start: /{_pattern(grammar['pattern'])}/"}]})
    if kind == "grammar":
        return _whole({"lark_grammar": _context_free(grammar["text"])})
    return _whole({"lark_grammar": _Lark().of(grammar)})


def _context_free(text: str) -> str:
    """Return Lark text as it is, and GBNF as Lark."""
    from llguidance.gbnf_to_lark import any_to_lark  # noqa: PLC0415

    try:
        return any_to_lark(text)
    except Exception as error:  # its own, or a plain one
        raise ValueError(f"the grammar is neither Lark nor GBNF: {error}") from error


def _whole(part: dict[str, Any]) -> str:
    return json.dumps({"grammars": [part]})


def _schema(grammar: Grammar) -> dict[str, Any]:
    """Return the schema with llguidance's own options in it, none of which a client's schema may set."""
    schema = grammar["schema"]
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise ValueError("a JSON schema is an object, true or false")
    whitespace = grammar.get("whitespace")
    options: dict[str, Any] = {"lenient": bool(grammar.get("lenient")), "whitespace_flexible": False}
    if whitespace is not False:
        options["whitespace_pattern"] = whitespace or WHITESPACE
    return {**schema, "x-guidance": options}


def _pattern(pattern: str) -> str:
    """Return a regular expression as it stands between slashes."""
    return re.sub(r"(\\?\n)|(\\.)|/", lambda found: r"\n" if found[1] else found[2] or r"\/", pattern, flags=re.DOTALL)


class _Lark:
    """Writes one grammar as rules, each part a rule of its own."""

    def __init__(self) -> None:
        self._rules: list[str] = []

    def of(self, grammar: Grammar) -> str:
        """Return the text of the whole."""
        start = self._rule(grammar)
        return "\n".join(["%llguidance {}", f"start: {start}", *self._rules])

    def _rule(self, grammar: Grammar) -> str:
        """Write a part's rule, after those of its own parts, and return its name."""
        body = self._body(grammar)
        if len(self._rules) >= MAX_PARTS:
            raise ValueError(f"a grammar of more than {MAX_PARTS} parts")
        # Names in capitals are terminals: a pattern must be one.
        name = f"{'P' if grammar['type'] == 'regex' else 'r'}{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def _body(self, grammar: Grammar) -> str:
        match grammar["type"]:
            case "text":
                body = json.dumps(grammar["text"])
            case "token":
                body = f"<[{int(grammar['id'])}]>"
            case "regex":
                body = f"/{_pattern(grammar['pattern'])}/"
            case "choice":
                body = " | ".join(json.dumps(text) for text in grammar["choices"])
            case "json":
                body = f"%json {json.dumps(_schema(grammar))}"
            case "sequence":
                body = " ".join(self._rule(part) for part in grammar["parts"])
            case "any_of":
                body = " | ".join(self._rule(part) for part in grammar["parts"])
            case "repeat":
                body = self._repeat(grammar)
            case kind:
                raise ValueError(f"grammars of type {kind!r} are unknown, or cannot be parts of others")
        return body

    def _repeat(self, grammar: Grammar) -> str:
        part, most = self._rule(grammar["part"]), grammar.get("max")
        separator = grammar.get("separator")
        more = f"({self._rule(separator)} {part})" if separator else part
        return f"{part} {more}" + ("*" if most is None else f"{{0,{int(most) - 1}}}")
