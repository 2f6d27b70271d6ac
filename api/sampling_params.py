"""SamplingParams: how to continue a prompt, as users say it, checked field by field and resolved to token ids."""

from __future__ import annotations

import math
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.sampling import choice_seed
from ..core.types import DecodeParams
from .errors import ParameterError
from .structured.outputs import StructuredOutputs

MAX_STOP_STRINGS = 64
MAX_STOP_LENGTH = 1024  # characters
MAX_CHOICES = 128
MAX_ID_DIGITS = 20  # of a token id that is written as a string
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
        for name in ("stop", "bad_words"):
            _put(self, name, _strings(name, getattr(self, name)))
        _put(self, "stop_token_ids", _ids("stop_token_ids", self.stop_token_ids or ()))
        if self.allowed_token_ids is not None:
            _put(self, "allowed_token_ids", _ids("allowed_token_ids", self.allowed_token_ids))
        _put(self, "shown_special_tokens", _ids("shown_special_tokens", self.shown_special_tokens or ()))
        _put(self, "structured_outputs", StructuredOutputs.of(self.structured_outputs))
        _put(self, "logit_bias", _biases(self.logit_bias or {}))
        _put(self, "top_k", 0 if self.top_k == -1 else self.top_k)
        self._check_numbers()
        self._check_lists()

    def _check_numbers(self) -> None:
        if self.max_tokens is not None:
            _integer("max_tokens", self.max_tokens, 0)
        _integer("min_tokens", self.min_tokens, 0)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ParameterError("min_tokens", self.min_tokens, f"at most max_tokens, which is {self.max_tokens}")
        _number("temperature", self.temperature, 0, math.inf)
        _integer("top_k", self.top_k, 0, allowed="-1 or 0 (off), or an integer of at least 1")
        _number("top_p", self.top_p, 0, 1, above=True)
        _number("min_p", self.min_p, 0, 1)
        if self.seed is not None:
            _integer("seed", self.seed, -(2**63), 2**64 - 1, allowed="an integer of 64 bits, or null")
        _number("presence_penalty", self.presence_penalty, -2, 2)
        _number("frequency_penalty", self.frequency_penalty, -2, 2)
        _number("repetition_penalty", self.repetition_penalty, 0, math.inf, above=True)
        _integer("n", self.n, 1, MAX_CHOICES)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _integer(name, getattr(self, name), -1, allowed="null (off), -1 (the whole vocabulary) or at least 0")

    def _check_lists(self) -> None:
        if len(self.stop) > MAX_STOP_STRINGS:
            raise ParameterError("stop", len(self.stop), f"at most {MAX_STOP_STRINGS} strings")
        for text in self.stop:
            if len(text) > MAX_STOP_LENGTH:
                raise ParameterError("stop", text, f"strings of at most {MAX_STOP_LENGTH} characters")
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise ParameterError("allowed_token_ids", [], "null, or at least one token id")
        for name in ("include_stop_str_in_output", "ignore_eos", "echo", "skip_special_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise ParameterError(name, getattr(self, name), "true or false")

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
        allowed = f"token ids from 0 to {vocab_size - 1}"
        for name in ("logit_bias", "allowed_token_ids", "stop_token_ids"):
            for token_id in getattr(self, name) or ():
                if token_id >= vocab_size:
                    raise ParameterError(name, token_id, allowed)
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


def _put(params: SamplingParams, name: str, value: object) -> None:
    object.__setattr__(params, name, value)  # frozen for everybody else


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(name: str, value: object, low: int, high: float = math.inf, *, allowed: str = "") -> None:
    if not (_is_integer(value) and low <= value <= high):  # type: ignore[operator]
        bounds = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ParameterError(name, value, allowed or f"an integer {bounds}")


def _number(name: str, value: object, low: float, high: float, *, above: bool = False) -> None:
    # Compared, not math.isfinite: that raises for an integer which no float can hold.
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not (good and low <= value <= high and not (above and value == low)):  # type: ignore[operator]
        start = f"above {low:g}" if above else f"of at least {low:g}"
        raise ParameterError(name, value, f"a number {start}" + ("" if high == math.inf else f" and at most {high:g}"))


def _strings(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = (value,) if isinstance(value, str) else value
    good = isinstance(items, list | tuple) and all(isinstance(item, str) and item for item in items)
    if not good:
        raise ParameterError(name, value, "a string, or a list of strings, none of them empty")
    return tuple(items)  # type: ignore[arg-type]


def _ids(name: str, value: object) -> tuple[int, ...]:
    good = isinstance(value, list | tuple | set | frozenset | range)
    if not good or not all(_is_integer(item) and item >= 0 for item in value):  # type: ignore[attr-defined]
        raise ParameterError(name, value, "a list of token ids")
    return tuple(value)  # type: ignore[arg-type]


def _biases(value: object) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise ParameterError("logit_bias", value, "an object from token ids to numbers")
    biases: dict[int, float] = {}
    for key, bias in value.items():  # JSON has string keys only
        is_id = _is_integer(key) or (isinstance(key, str) and key.isdecimal() and len(key) <= MAX_ID_DIGITS)
        if not is_id or int(key) < 0:
            raise ParameterError("logit_bias", key, "token ids as keys")
        _number("logit_bias", bias, -100, 100)
        biases[int(key)] = float(bias)
    return biases


def _at_most(count: int | None, vocab_size: int) -> int | None:
    return None if count is None else min(count, vocab_size)
