"""Grammars that were made to hurt: each must be refused, or be cheap."""

from __future__ import annotations

import json
from typing import Any


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def _doubling(levels: int) -> dict[str, Any]:
    """Each definition uses the next one twice: written out it has 2 ** levels parts."""
    definitions: dict[str, Any] = {
        f"d{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{i + 1}"}] * 2, "items": False}
        for i in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "string"}}}


def _all_of(count: int) -> dict[str, Any]:
    """Patterns that must hold together: the product of their automata."""
    return {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{10 + i}}}"} for i in range(count)]}


SCHEMAS: dict[str, dict[str, Any]] = {
    "deep nesting": _deep(400),
    "doubling references": _doubling(40),
    "a reference to itself": {"$ref": "#"},
    "a ring of references": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "a remote reference": {"$ref": "http://169.254.169.254/latest/meta-data"},
    "a file as reference": {"$ref": "file:///etc/passwd"},
    "a huge enumeration": {"enum": [f"value {i} of very many" for i in range(8000)]},
    "patterns that multiply": _all_of(12),
    "an endless minimum": {"type": "array", "items": {"type": "integer"}, "minItems": 10_000_000},
    "a long string": {"type": "string", "minLength": 50_000_000},
    "many properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}},
    "any of very many": {"anyOf": [{"type": "object", "properties": {f"a{i}": _deep(3)}} for i in range(1500)]},
    "a pattern that repeats": {"type": "string", "pattern": "((a{1,200}){1,200}){1,200}"},
    "dependent everything": {"oneOf": [{"not": {"oneOf": [{"const": i}]}} for i in range(300)]},
}
GRAMMARS = {
    **{name: {"type": "json", "schema": schema} for name, schema in SCHEMAS.items()},
    "catastrophic regex": {"type": "regex", "pattern": "(a+)+" * 60 + "b"},
    "exponential automaton": {"type": "regex", "pattern": "(a|b)*a(a|b){900}c"},
    "nested repetition": {"type": "regex", "pattern": "(((((a{0,99}){0,99}){0,99}){0,99}){0,99})"},
    "unicode classes": {"type": "regex", "pattern": r"(\w{500}\W{500}){50}"},
    "nested groups": {"type": "regex", "pattern": "(" * 20_000 + "a" + ")" * 20_000},
    "intersections": {"type": "grammar", "text": "start: /(a|b)*a(a|b){40}/ & /(a|b)*b(a|b){41}/ & /(ab)*/"},
    "ambiguous grammar": {"type": "grammar", "text": 'start: e\ne: e e e e | e e | "a" | '},
    "left recursion for ever": {"type": "grammar", "text": "start: a\na: b\nb: a"},
    "a grammar of many rules": {
        "type": "grammar",
        "text": "start: r0\n" + "\n".join(f'r{i}: r{i + 1} r{i + 1} | "x{i}"' for i in range(4000)) + '\nr4000: "y"',
    },
    "nested GBNF": {"type": "grammar", "text": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000},
}
TEXTS = {name: json.dumps(grammar) for name, grammar in GRAMMARS.items()}
