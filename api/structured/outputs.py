"""StructuredOutputs: what an answer must be, as users say it, checked and written as a grammar."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import ParameterError

MAX_BYTES = 256 * 1024  # of a grammar
MAX_CHOICES = 10_000
KINDS = ("json", "json_object", "regex", "choice", "grammar", "parts")
_OFF = "json_object", False
_ALLOWED = "exactly one of json, json_object, regex, choice and grammar"


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputs:
    """What the whole answer must be: one of the first six. Raises ParameterError, which names the field."""

    json: Mapping[str, Any] | str | bool | None = None  # a JSON schema, or its text
    json_object: bool | None = None  # any JSON object
    regex: str | None = None  # as a whole
    choice: Sequence[str] | None = None  # one of these
    grammar: str | None = None  # Lark (as llguidance has it) or GBNF
    parts: Mapping[str, Any] | None = None  # a grammar in the words of plugins/grammars
    disable_any_whitespace: bool = False  # in JSON: none between its parts
    whitespace_pattern: str | None = None  # in JSON: what may stand between its parts
    lenient: bool = False  # pass over keywords of a schema that cannot be enforced, instead of refusing them
    name: str = "structured_outputs"  # what the request calls this
    text: str = field(init=False, default="")  # the grammar, for the engine

    def __post_init__(self) -> None:
        """Check what is given and write the grammar."""
        given = [kind for kind in KINDS if getattr(self, kind) is not None and (kind, getattr(self, kind)) != _OFF]
        if len(given) != 1:
            raise ParameterError(self.name, given, _ALLOWED)
        try:
            text = json_text.dumps(getattr(self, f"_{given[0]}")(), ensure_ascii=False, separators=(",", ":"))
            size = len(text.encode())  # refuses halves of characters
        except (RecursionError, ValueError, TypeError) as error:
            raise ParameterError(self.name, given[0], f"what JSON can say ({error})") from error
        if size > MAX_BYTES:
            raise ParameterError(self.name, f"{size} bytes", f"a grammar of at most {MAX_BYTES} bytes")
        object.__setattr__(self, "text", text)

    @classmethod
    def of(cls, value: object, name: str = "structured_outputs") -> StructuredOutputs | None:
        """Return these from a mapping as clients send it; None for one that asks for nothing. Raises ParameterError."""
        if value is None or isinstance(value, StructuredOutputs):
            return value
        if not isinstance(value, Mapping):
            raise ParameterError(name, value, "an object")
        given = {key: item for key, item in value.items() if item is not None}
        if not given:
            return None
        known = {each.name for each in fields(cls)} - {"name", "text", "parts"}
        for key, item in given.items():
            if key not in known:
                raise ParameterError(f"{name}.{key}", item, f"one of {', '.join(sorted(known))}")
        return cls(**given, name=name)

    def _json(self) -> dict[str, Any]:
        schema = self.json
        if isinstance(schema, str):
            schema = json_text.loads(schema)
        if not isinstance(schema, Mapping | bool):
            raise ParameterError(self.name, schema, "a JSON schema: an object, true or false")
        return self._json_grammar(schema)

    def _json_object(self) -> dict[str, Any]:
        return self._json_grammar({"type": "object"})

    def _json_grammar(self, schema: Mapping[str, Any] | bool) -> dict[str, Any]:
        whitespace = False if self.disable_any_whitespace else self.whitespace_pattern
        options: dict[str, Any] = {} if whitespace is None else {"whitespace": whitespace}
        if self.lenient:
            options["lenient"] = True
        return {"type": "json", "schema": schema, **options}

    def _regex(self) -> dict[str, Any]:
        if not isinstance(self.regex, str):
            raise ParameterError(self.name, self.regex, "a regular expression")
        return {"type": "regex", "pattern": self.regex}

    def _choice(self) -> dict[str, Any]:
        choices = self.choice
        good = isinstance(choices, list | tuple) and all(isinstance(item, str) and item for item in choices)
        if not good or not choices or len(choices) > MAX_CHOICES:
            raise ParameterError(self.name, choices, f"a list of 1 to {MAX_CHOICES} texts, none of them empty")
        return {"type": "choice", "choices": list(choices)}

    def _grammar(self) -> dict[str, Any]:
        if not isinstance(self.grammar, str):
            raise ParameterError(self.name, self.grammar, "the text of a grammar")
        return {"type": "grammar", "text": self.grammar}

    def _parts(self) -> dict[str, Any]:
        assert self.parts is not None
        return dict(self.parts)
