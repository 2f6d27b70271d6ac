"""Keys and passwords: known prefixes, named assignments, and tokens too random to be words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

from .patterns import expression
from .spans import Kind, Rule

_PREFIXED = (
    r"sk-[A-Za-z0-9_\-]{20}",  # OpenAI, Anthropic and many others
    r"(?:gh[pousr]_[A-Za-z0-9]{20}|github_pat_[A-Za-z0-9_]{22}|glpat-[A-Za-z0-9_\-]{20})",
    r"xox[abeoprs]-[A-Za-z0-9\-]{10}",
    r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}",
    r"AIza[A-Za-z0-9_\-]{30}",
    r"hf_[A-Za-z0-9]{20}",
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16}",
    r"(?:npm_[A-Za-z0-9]{20}|pypi-[A-Za-z0-9_\-]{20}|dop_v1_[a-f0-9]{20})",
    r"itk_[A-Za-z0-9]{20}",  # isotoken's own
)
_DOTTED = (
    r"SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{16}",
    r"eyJ[A-Za-z0-9_\-]{8,200}\.eyJ[A-Za-z0-9_\-]{8}",  # JSON Web Tokens
)
_AFTER_KEY = re.compile(r"(?=[^A-Za-z0-9_\-])")
_AFTER_DOTTED = re.compile(r"(?=[^A-Za-z0-9_\-.])")

_PEM = r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----"
_AFTER_PEM = re.compile(r"-----END [A-Z ]{0,20}PRIVATE KEY-----")
_PEM_WIDTH = 50

_NAMED = (
    r"(?i:(?<![A-Za-z])(?:bearer[ ]{1,2}|"
    r"(?:password|passwd|pwd|secret|token|api[_\- ]?key|access[_\- ]?key|auth[_\- ]?token)[\"']?"
    r"[ ]{0,2}[:=]>?[ ]{0,2}))"
    r"[\"']?[^\s\"'`,;<>()]{8,64}"
)
_VALUE = re.compile(r"(?:[:=]>?[ ]{0,2}|(?i:bearer)[ ]{1,2})[\"']?([^\s\"'`,;<>()]+)$")
_CODE = re.compile(  # a name in a program, not a value
    r"(?:[A-Za-z]+(?:_[A-Za-z]+)*_?\d{0,2}|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[\w.]+\[.*)$"
)
_AFTER_VALUE = re.compile(r"(?=[\s\"'`,;<>()])")

_RANDOM = r"(?<![A-Za-z0-9_\-+/=.])[A-Za-z0-9_\-]{32,64}"

MIN_BITS = 2.5
"""Of a value that is named a password, for each character: eight different ones have 3, "********" none."""

RANDOM_BITS = 4.2
"""Of a token with no name: identifiers made of words stay below, 32 random letters and digits are at 4.5."""


def secret_rules(kind: Kind) -> Iterator[Rule]:
    """Return the rules that find keys and passwords."""
    yield Rule(kind, *expression(_PEM), until=_AFTER_PEM, until_width=_PEM_WIDTH)
    for pattern in _PREFIXED:
        yield Rule(kind, *expression(rf"(?<![A-Za-z0-9]){pattern}"), until=_AFTER_KEY)
    for pattern in _DOTTED:
        yield Rule(kind, *expression(rf"(?<![A-Za-z0-9]){pattern}"), until=_AFTER_DOTTED)
    yield Rule(kind, *expression(_NAMED), check=_named_value, until=_AFTER_VALUE)
    yield Rule(kind, *expression(_RANDOM), check=_whole(is_random), until=_AFTER_KEY)


def is_random(text: str) -> bool:
    """Whether a token has upper case, lower case, digits, and too much variety to be made of words."""
    return (
        sum(map(str.isdigit, text)) >= 3
        and any(map(str.isupper, text))
        and any(map(str.islower, text))
        and bits(text) >= RANDOM_BITS
    )


def bits(text: str) -> float:
    """Return the entropy of a text's characters, in bits for each."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values())


def _named_value(text: str) -> tuple[int, int] | None:
    """Return where the value of an assignment is, unless it is a word or stands for one."""
    match = _VALUE.search(text)
    if match is None:
        return None
    value = match[1]
    varied = any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and bits(value) >= MIN_BITS
    is_code = text[match.start(1) - 1] not in "\"'" and _CODE.match(value) is not None
    is_placeholder = value[0] in "$%{[" or value.endswith(("]", "}"))
    return match.span(1) if varied and not is_code and not is_placeholder else None


def _whole(is_one: Callable[[str], bool]) -> Callable[[str], tuple[int, int] | None]:
    return lambda text: (0, len(text)) if is_one(text) else None
