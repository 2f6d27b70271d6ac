"""Personal data and secrets: what they look like, and the checksums and numbering plans that tell them from numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from .extras import needed
from .filters import Action, Filter, FilterContext, MakeFilter
from .patterns import expression
from .secrets import secret_rules
from .spans import Kind, RegexMatcher, Rule, SpanFilter

PiiKind = Literal["secret", "email", "iban", "card", "phone"]
KINDS: tuple[PiiKind, ...] = ("secret", "email", "iban", "card", "phone")
"""In the order in which they are tried at one place."""

NAMES = {
    "secret": "a key or password",
    "email": "an e-mail address",
    "iban": "a bank account number",
    "card": "a payment card number",
    "phone": "a phone number",
}

# An address begins a word, or follows punctuation in one: "see:john@example.org", "--john@example.org".
_EMAIL = (
    r"(?:(?<![\w.%+\-])|(?<=[.%+\-])(?=\w))[\w.%+\-]{1,64}@"
    r"(?:[^\W_](?:[\w\-]{0,61}[^\W_])?\.){1,8}[^\W\d_][\w\-]{0,61}[^\W_]"
)
_IBAN = r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ \-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])"
_CARD = r"(?<![0-9.])[0-9](?:[ \-]?[0-9]){12,18}(?![0-9])"
_PHONE = r"(?<![\w+.])(?:\+|\(\+?)?[0-9](?:[ ().\-/]{0,2}[0-9]){6,16}(?!\w)"

_BRANDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]|2[2-7])\d{14}"  # Mastercard
    r"|3[47]\d{13}|3[0689]\d{12}|35\d{14,17}"  # American Express, Diners, JCB
    r"|6\d{15,18}|5[06-9]\d{11,17}"  # Discover, UnionPay, Maestro
)
_GROUP = re.compile(r"\d+")
_NO_PHONE = re.compile(
    r"(?:19|20)\d\d([-/.])[01]?\d\1[0-3]?\d(?:\D|$)"  # 2026-11-22 18
    r"|[0-3]?\d([-/.])[0-3]?\d\2(?:19|20)\d\d(?:\D|$)"  # 22.11.2026
    r"|\d{1,3}(?:\.\d{1,3}){3}$"  # 192.168.100.200
    r"|\d+\.\d+$"  # 3.14159265
)


class PiiOptions(BaseModel, extra="forbid"):
    """What the filter `pii` looks for, and what it does about it."""

    action: Action = "redact"
    kinds: frozenset[PiiKind] = frozenset(KINDS)
    actions: dict[PiiKind, Action] = Field(default_factory=dict, description="For kinds that are treated otherwise.")
    labels: dict[PiiKind, str] = Field(default_factory=dict, description="What takes their place; [EMAIL] and so on.")
    phone_regions: tuple[str, ...] = Field(
        default=("US",), description="Countries whose numbers are known without a country code, such as US, DE."
    )
    bare_phones: bool = Field(
        default=False, description="National numbers that are digits only, too: 2147483647 is one of Dallas."
    )


def pii(options: Mapping[str, Any], context: FilterContext) -> MakeFilter:
    """Return what makes filters of personal data. Raises ValueError for options that are wrong."""
    asked = PiiOptions(**options)
    rules = [rule for kind in KINDS if kind in asked.kinds for rule in _rules(kind, _kind(kind, asked), asked)]
    if not rules:
        raise ValueError("kinds = [] is not allowed: leave the filter out")
    matcher = RegexMatcher(rules, re.compile)

    def make() -> Filter:
        return SpanFilter(matcher)

    return make


def _kind(kind: PiiKind, asked: PiiOptions) -> Kind:
    label = asked.labels.get(kind, f"[{kind.upper()}]")
    return Kind(kind, asked.actions.get(kind, asked.action), label, f"it holds {NAMES[kind]}")


def _rules(kind: PiiKind, found: Kind, asked: PiiOptions) -> Iterator[Rule]:
    if kind == "secret":
        yield from secret_rules(found)
    elif kind == "email":
        yield _rule(found, _EMAIL)
    elif kind == "iban":
        yield _rule(found, _IBAN, _is_iban())
    elif kind == "card":
        yield _rule(found, _CARD, _is_card())
    else:
        yield _rule(found, _PHONE, _is_phone(asked.phone_regions, asked.bare_phones))


def _rule(kind: Kind, pattern: str, is_one: Callable[[str], bool] | None = None) -> Rule:
    check = None if is_one is None else lambda text: _longest(text, is_one)
    return Rule(kind, *expression(pattern), check)


def _longest(text: str, is_one: Callable[[str], bool]) -> tuple[int, int] | None:
    """Return the longest beginning that is one and ends where a group of characters ends."""
    stop = len(text)
    while stop > 6:
        if is_one(text[:stop]):
            return 0, stop
        while stop and text[stop - 1].isalnum():
            stop -= 1
        while stop and not text[stop - 1].isalnum():
            stop -= 1
    return None


def _is_iban() -> Callable[[str], bool]:
    iban = needed("stdnum.iban", "python-stdnum", "IBANs")

    def is_iban(text: str) -> bool:
        return bool(iban.is_valid(text.replace("-", " ")))

    return is_iban


def _is_card() -> Callable[[str], bool]:
    luhn = needed("stdnum.luhn", "python-stdnum", "payment cards")

    def is_card(text: str) -> bool:
        groups = _GROUP.findall(text)
        digits = "".join(groups)
        if min(map(len, groups)) < 3:
            return False  # a row of small numbers
        return _BRANDS.fullmatch(digits) is not None and bool(luhn.is_valid(digits))

    return is_card


def _is_phone(regions: tuple[str, ...], bare: bool) -> Callable[[str], bool]:
    phones = needed("phonenumbers", "phonenumbers", "phone numbers")
    for region in regions:
        if region not in phones.SUPPORTED_REGIONS:
            raise ValueError(f"phone_regions = {region!r} is not allowed: it must be a country code such as US or DE")

    def is_phone(text: str) -> bool:
        if _NO_PHONE.match(text) or sum(len(group) == 1 for group in _GROUP.findall(text)) > 2:
            return False  # "+1 (0) 2..." may be one; "1 2 3 4 5 6 7" is none
        international = text.lstrip("(").startswith(("+", "00"))
        number = text.lstrip("(").replace("00", "+", 1) if text.lstrip("(").startswith("00") else text
        if not international and not bare and text.isdigit() and not text.startswith("0"):
            return False
        for region in (None,) if international else regions:
            try:
                if phones.is_valid_number(phones.parse(number, region)):
                    return True
            except phones.NumberParseException:
                continue
        return False

    return is_phone
