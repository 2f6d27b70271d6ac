"""Grammars through llguidance (https://github.com/guidance-ai/llguidance): masks from an Earley parser over a trie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...core.batch import UInt32
from ...core.constraints import Constraint, ConstraintError
from ...core.types import Unsupported
from . import GrammarContext, TokenTable
from .guidance_text import read_grammar, to_guidance

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

LIMITS = {
    "initial_lexer_fuel": 1_000_000,  # some 20 ms of building patterns
    "step_lexer_fuel": 50_000,  # for one mask, some 4 ms;
    "step_max_items": 10_000,  # likewise, of parsing
    "max_items_in_row": 700,  # the time for a token grows with its square: 20 ms here, half a second at 2000
    "max_lexer_states": 50_000,  # some 100 MB for one request
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}
"""Counted, not timed: the same grammar passes or fails everywhere. They bound each call, whoever wrote the grammar."""


MAX_MESSAGE = 500


class GuidanceCompiler:
    """Compiles grammars for one model. The library and the tokenizer are read when the first one comes."""

    def __init__(self, context: GrammarContext) -> None:
        """Raises Unsupported where llguidance is not installed."""
        if find_spec("llguidance") is None:
            raise Unsupported("grammars need llguidance: pip install 'isotoken[structured]'")
        self._context = context
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def compile(self, grammar: str) -> Callable[[], Constraint]:
        """Return what makes constraints at their start. Raises ValueError with a reason for the user."""
        matcher = self.matcher(grammar)
        num_bytes = -(-self._context.vocab_size // 32) * 4
        eos = self._context.eos_token_ids
        return lambda: GuidanceConstraint(matcher.deep_copy(), num_bytes, eos)

    def matcher(self, grammar: str) -> LLMatcher:
        """Compile a grammar and return the library's object at its start. Raises ValueError."""
        from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415

        text = to_guidance(read_grammar(grammar))
        matcher = LLMatcher(self.tokenizer(), text, log_level=0, limits=LLParserLimits(**LIMITS))  # type: ignore[arg-type]
        if matcher.is_error():
            raise ValueError(_first_line(matcher.get_error()))
        return matcher

    def tokenizer(self) -> LLTokenizer:
        """Return the library's view of the vocabulary, made once."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self._context)
            return self._tokenizer


class GuidanceConstraint:
    """One request's matcher. Its methods never raise for what a grammar or a token does: it stands still instead."""

    def __init__(self, matcher: LLMatcher, num_bytes: int, eos_token_ids: frozenset[int]) -> None:
        self._matcher = matcher
        self._num_bytes = num_bytes  # of a mask
        self._eos = eos_token_ids

    def fill_mask(self, mask: UInt32) -> None:
        """Write which tokens may follow. Raises ConstraintError where a limit is met."""
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, self._num_bytes)
        if self._matcher.is_error():
            raise ConstraintError(self.error)

    def advance(self, token_ids: Sequence[int]) -> int:
        """Take tokens up to the first that may not follow, and return how many."""
        tokens = list(token_ids)
        if not self._eos.isdisjoint(tokens):
            tokens = tokens[: next(i for i, token in enumerate(tokens) if token in self._eos)]
        return self._matcher.try_consume_tokens(tokens) if tokens else 0

    def rollback(self, num_tokens: int) -> None:
        """Undo the last so many tokens."""
        if num_tokens:
            self._matcher.rollback(num_tokens)

    @property
    def may_end(self) -> bool:
        """Whether what was taken is a whole output."""
        return not self._matcher.is_error() and bool(self._matcher.is_accepting())

    @property
    def is_finished(self) -> bool:
        """Whether nothing may follow it."""
        return bool(self._matcher.is_stopped()) and self.may_end

    @property
    def error(self) -> str:
        """Why nothing is taken any more, where a limit was met."""
        return _first_line(self._matcher.get_error()) if self._matcher.is_error() else ""


class _Vocabulary:
    """What llguidance asks of a tokenizer. Where a grammar forces text, it allows the tokens of that text alone."""

    def __init__(self, table: TokenTable, vocab_size: int, eos_token_id: int) -> None:
        self.tokens = [*table.tokens, *[b""] * (vocab_size - len(table.tokens))]
        self.special_token_ids = sorted(table.special_ids)
        for token_id, name in table.special_ids.items():
            self.tokens[token_id] = name.encode()
        self.eos_token_id = eos_token_id
        self.bos_token_id = None
        self._encode = table.encode

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):  # it asks whether bytes will do
            raise TypeError("a text is needed")
        return self._encode(text)


def _tokenizer(context: GrammarContext) -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415

    table = context.load_tokens()
    eos = sorted(context.eos_token_ids)
    if not eos:
        raise ValueError("grammars need a model with an end-of-sequence token")
    wrapper: Any = TokenizerWrapper(_Vocabulary(table, context.vocab_size, eos[0]))
    return LLTokenizer(wrapper, n_vocab=context.vocab_size, eos_token=eos)


def _first_line(message: str) -> str:
    """Return the part of the library's message that is for whoever wrote the grammar."""
    first, *rest = [line.strip() for line in message.splitlines() if line.strip()] or ["it cannot be compiled"]
    if first.startswith("NoExtension"):
        return "nothing can satisfy it"
    found = [line.removeprefix("error: ") for line in rest if line.startswith("error: ")]
    return " ".join([first, *found])[:MAX_MESSAGE]
