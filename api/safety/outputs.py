"""OutputFilters: what leaves of one generation. Text, token ids and log-probabilities, each choice for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..detokenizer import Detokenizer
from ..engine import GenerationDelta
from ..text import TextModel
from .chain import Chain, Token
from .filters import Finding, MakeFilter

Told = Callable[[Sequence[Finding]], None]
"""Hears what was found in a text, at its end."""


class OutputFilters:
    """Feed it the deltas of all choices; it returns what may leave."""

    def __init__(self, makers: Sequence[MakeFilter], text: TextModel, skip_special_tokens: bool, told: Told) -> None:
        self._makers = makers
        self._text = text
        self._skip_special_tokens = skip_special_tokens
        self._told = told
        self._choices: dict[int, _Choice] = {}
        self.with_tokens = True  # whether anybody is shown token ids or log-probabilities

    def lead(self, index: int, text: str) -> None:
        """Put a text before the choice's own, such as an echoed prompt: what they make together is looked at."""
        self._choice(index).lead = text
        passed = (chain := self._chain()).whole(text)
        self._choice(index).is_lead_changed = chain.changed or passed.block is not None

    def is_lead_changed(self, index: int) -> bool:
        """Whether that text, taken alone, is not released as it is."""
        return self._choice(index).is_lead_changed

    def whole(self, text: str) -> str:
        """Return what may leave of a text that is all there."""
        return self._chain().whole(text).text

    def feed(self, index: int, delta: GenerationDelta) -> GenerationDelta | None:
        """Return what may leave now; None: nothing."""
        choice = self._choice(index)
        if choice.ended:
            return None
        passed = choice.feed(delta)
        if passed is not None and passed.finish_reason is not None:
            self._told(choice.chain.findings)
        return passed

    def _choice(self, index: int) -> _Choice:
        if index not in self._choices:
            tracker = None
            if self.with_tokens:
                tracker = self._text.detokenizer(skip_special_tokens=self._skip_special_tokens)
            skipped = self._text.vocabulary.special_ids if self._skip_special_tokens else frozenset()
            self._choices[index] = _Choice(self._chain(), tracker, skipped)
        return self._choices[index]

    def _chain(self) -> Chain:
        return Chain([make() for make in self._makers])


class _Choice:
    """One choice on its way through the filters."""

    def __init__(self, chain: Chain, tracker: Detokenizer | None, skipped: frozenset[int]) -> None:
        self.chain = chain
        self.lead = ""
        self.is_lead_changed = False
        self.ended = False
        self._tracker = tracker
        self._skipped = skipped
        self._offset = 0  # characters of all tokens so far
        self._has_begun = False

    def feed(self, delta: GenerationDelta) -> GenerationDelta | None:
        text = delta.text
        if not self._has_begun:
            self._has_begun = True
            text, self._offset = self.lead + text, len(self.lead)
        tokens = [] if self._tracker is None else self._tokens(delta, self._tracker)
        passed = self.chain.feed(text, tokens, final=delta.finish_reason is not None)
        finish_reason, stop_reason = delta.finish_reason, delta.stop_reason
        if passed.block is not None:
            finish_reason, stop_reason = passed.block.finish_reason, passed.block.stop_reason
        self.ended = finish_reason is not None
        if not (passed.text or passed.tokens or self.ended or delta.prompt_logprobs):
            return None
        return GenerationDelta(
            index=delta.index,
            text=passed.text,
            token_ids=[token.token_id for token in passed.tokens],
            logprobs=None
            if delta.logprobs is None
            else [token.logprobs for token in passed.tokens if token.logprobs is not None],
            finish_reason=finish_reason,
            stop_reason=stop_reason,
            prompt_logprobs=delta.prompt_logprobs,
            num_cached_tokens=delta.num_cached_tokens,
            offsets=[token.start for token in passed.tokens],
        )

    def _tokens(self, delta: GenerationDelta, tracker: Detokenizer) -> list[Token]:
        """Say which characters each token stands for. One that ends within a character stands for all of it."""
        tokens = []
        for i, token_id in enumerate(delta.token_ids):
            start = self._offset
            self._offset += len(tracker.push(token_id))
            is_part = self._offset == start and token_id not in self._skipped
            logprobs = delta.logprobs[i] if delta.logprobs else None
            tokens.append(Token(token_id, logprobs, start, start + 1 if is_part else self._offset))
        return tokens
