"""Grammars say what an output must look like; a compiler turns them into constraints on each next token.

A grammar is a JSON object, as text, of one of these types:

- `{"type": "json", "schema": {...}}`: a value of a JSON schema. Between its parts may stand what the pattern
  `"whitespace"` matches, by default a space or an indented new line, nothing if it is false. `"lenient": true` passes
  over keywords that cannot be enforced, which else are refused.
- `{"type": "regex", "pattern": "..."}`: text that the pattern matches as a whole.
- `{"type": "choice", "choices": ["...", ...]}`: one of these texts.
- `{"type": "grammar", "text": "..."}`: a context-free grammar, in a form that the compiler reads. Only by itself.
- `{"type": "text", "text": "..."}`: this text.
- `{"type": "token", "id": 5}`: this token, which no text spells.
- `{"type": "sequence", "parts": [...]}`, `{"type": "any_of", "parts": [...]}`: grammars one after the other;
  any of them.
- `{"type": "repeat", "part": {...}, "separator": {...} or null, "max": n or null}`: one at least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class TokenTable(NamedTuple):
    """A tokenizer's vocabulary."""

    tokens: Sequence[bytes]  # what each id adds to a text; empty for an id without a token
    special_ids: Mapping[int, str]  # tokens that no text spells, with their names
    encode: Callable[[str], list[int]]  # the tokens that a text is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarContext:
    """What a grammar compiler is built from."""

    vocab_size: int  # of the model: at least the tokenizer's
    eos_token_ids: frozenset[int]
    load_tokens: Callable[[], TokenTable]  # reads the tokenizer; raises ValueError for one that has no such table
