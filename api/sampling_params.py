"""SamplingParams: how to continue a prompt, as users say it, checked field by field and resolved to token ids."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import compress
from operator import attrgetter, is_not
from typing import Any

from ..core.sampling import choice_seed
from ..core.types import DecodeParams
from .errors import ParameterError
from .sampling_checks import CHECKS
from .structured.outputs import StructuredOutputs

GREEDY_BELOW = 1e-5  # temperatures under this are greedy: their scores would overflow float32


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to continue a prompt. Lists may be given where a field holds a tuple, one string where it holds several.

    Raises ParameterError, which names the field, its value and what is allowed.
    """

    max_tokens: int | None = 16  # None: as many as the context holds; 0: score the prompt only
    min_tokens: int = 0  # no end of sequence, stop token or stop string before this many
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 or -1 is off
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None  # None: drawn when the request is submitted
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] = ()
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    n: int = 1  # choices; choice i draws with a seed of its own
    logprobs: int | None = None  # None: off; 0: the drawn token's; k: and the k best; -1: the whole vocabulary
    prompt_logprobs: int | None = None  # likewise, for the prompt's tokens
    echo: bool = False  # the answer's text begins with the prompt (done by whoever builds the answer)
    skip_special_tokens: bool = True
    shown_special_tokens: Sequence[int] = ()  # that are shown nevertheless
    structured_outputs: StructuredOutputs | Mapping[str, Any] | None = None  # what the whole output must be

    def __post_init__(self) -> None:
        """Normalise and check every field."""
        given = compress(_NAMES, map(is_not, _values(self), _DEFAULTS))  # what was left out is as it should be
        for name in tuple(given):
            object.__setattr__(self, name, CHECKS[name](name, getattr(self, name)))  # frozen for everybody else
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ParameterError("min_tokens", self.min_tokens, f"at most max_tokens, which is {self.max_tokens}")

    @property
    def grammar(self) -> str | None:
        """What the output must be, in the words of plugins/grammars."""
        wanted = self.structured_outputs
        return wanted.text if isinstance(wanted, StructuredOutputs) else None

    def replace(self, **changes: Any) -> SamplingParams:
        """Return a copy with other values, checked likewise."""
        return replace(self, **changes)

    def resolve(self, *, vocab_size: int, max_tokens: int, encode: Callable[[str], list[int]]) -> list[DecodeParams]:
        """Return what the engine needs for each of the n choices, in token ids and with seeds drawn.

        `max_tokens` is what the context leaves, used where the field is None; `encode` turns text into ids without
        special tokens. Raises ParameterError for token ids outside the vocabulary.
        """
        for name in ("logit_bias", "allowed_token_ids", "stop_token_ids"):
            for token_id in getattr(self, name) or ():
                if token_id >= vocab_size:
                    raise ParameterError(name, token_id, f"token ids from 0 to {vocab_size - 1}")
        seed = secrets.randbits(64) if self.seed is None else self.seed % 2**64
        first = DecodeParams(
            max_tokens=max_tokens if self.max_tokens is None else self.max_tokens,
            min_tokens=self.min_tokens,
            temperature=0.0 if self.temperature < GREEDY_BELOW else float(self.temperature),
            top_k=min(self.top_k, vocab_size),
            top_p=float(self.top_p),
            min_p=float(self.min_p),
            seed=seed,
            presence_penalty=float(self.presence_penalty),
            frequency_penalty=float(self.frequency_penalty),
            repetition_penalty=float(self.repetition_penalty),
            logit_bias=dict(self.logit_bias),
            allowed_token_ids=None if self.allowed_token_ids is None else tuple(self.allowed_token_ids),
            bad_words_ids=_bad_words_ids(self.bad_words, encode, vocab_size),
            stop_token_ids=frozenset(self.stop_token_ids),
            ignore_eos=self.ignore_eos,
            grammar=self.grammar,
            num_logprobs=_at_most(self.logprobs, vocab_size),
            num_prompt_logprobs=_at_most(self.prompt_logprobs, vocab_size),
        )
        # The prompt is the same for all choices: one of them scores it.
        others = (replace(first, seed=choice_seed(seed, i), num_prompt_logprobs=None) for i in range(1, self.n))
        return [first, *others]


def _bad_words_ids(
    words: Sequence[str], encode: Callable[[str], list[int]], vocab_size: int
) -> tuple[tuple[int, ...], ...]:
    """Encode each word as it stands at the start of a text and as it stands after a space."""
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        for text in (word, " " + word.lstrip()):
            ids = tuple(encode(text))
            if not ids or max(ids) >= vocab_size:
                raise ParameterError("bad_words", word, "words that the tokenizer can spell in the model's vocabulary")
            found[ids] = None
    return tuple(found)


def _at_most(count: int | None, vocab_size: int) -> int | None:
    return None if count is None else min(count, vocab_size)


_NAMES = tuple(each.name for each in fields(SamplingParams))
_DEFAULTS = tuple(each.default for each in fields(SamplingParams))
_values = attrgetter(*_NAMES)
