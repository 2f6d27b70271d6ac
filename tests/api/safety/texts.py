"""What the tests share: texts with planted personal data, and ways to put a text through a filter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st
from isotoken.api.safety.chain import Chain, Passed
from isotoken.api.safety.filters import Filter
from isotoken.api.safety.plugin import register_classifiers, register_filters

FACTORIES: dict[str, object] = {}
CLASSIFIERS: dict[str, object] = {}
register_filters(register=lambda name, factory, *, description="": FACTORIES.update({name: factory}))
register_classifiers(register=lambda name, factory, *, description="": CLASSIFIERS.update({name: factory}))

ITEMS = {
    "email": ("john.doe@example.com", "a_b-c+d@mail.example.co.uk", "jörg@müller.example"),
    "phone": ("+1 202-555-0143", "(202) 555-0143", "+49 30 901820", "0044 20 7946 0958", "202.555.0143"),
    "card": ("4111 1111 1111 1111", "5555555555554444", "3782-822463-10005", "6011 1111 1111 1117"),
    "iban": ("DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "FR14 2004 1010 0505 0001 3M02 606"),
    "secret": (
        "sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8xYz",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "AKIAIOSFODNN7EXAMPLE",
        "itk_7Hq2Zk9Wm4Xn8Bv3Lc6Jd1Fg5Rt0Yp7Qs2Ua4Ie9Ow8Px3Kz",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV",
        "7f3Kd9Qz1Lp8Xw2Vb6Nm4Rt5Yh0Jc7Gs",
    ),
}

WORDS = (
    "the",
    "capital",
    "of",
    "Paris,",
    "call",
    "me",
    "at",
    "mail",
    "is",
    "über",
    "日本",
    "\n",
    "(",
    "so:",
    "42",
    "x.",
)
PLANTED = st.sampled_from([item for items in ITEMS.values() for item in items])


def filler(max_size: int = 6) -> st.SearchStrategy[str]:
    """Words between the items: they begin and end so that no item runs on into them."""
    return st.lists(st.sampled_from(WORDS), max_size=max_size).map(lambda words: " ".join(["and", *words, "and"]))


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text, and the items in it."""
    items = draw(st.lists(PLANTED, min_size=1, max_size=3))
    parts = [draw(filler())]
    for item in items:
        parts += draw(st.sampled_from([f" {item} ", f": {item}, ", f' "{item}" ', f" ({item}) "])), draw(filler())
    return "".join(parts), items


def pieces(text: str, cuts: Sequence[int]) -> list[str]:
    """Cut a text."""
    places = sorted({0, len(text), *(place for place in cuts if place <= len(text))})
    return [text[start:stop] for start, stop in pairwise(places)]


def in_pieces(made: Filter, text: str, cuts: Sequence[int]) -> tuple[str, str]:
    """Return what a filter makes of a text that comes in pieces: the text, and the reason of its end."""
    chain = Chain([made])
    released, reason = "", ""
    parts = pieces(text, cuts)
    for i, part in enumerate(parts):
        passed = chain.feed(part, [], final=i == len(parts) - 1)
        released += passed.text
        if passed.block is not None:
            reason = passed.block.reason
            break
    return released, reason


def whole(made: Filter, text: str) -> tuple[str, str]:
    """Return what a filter makes of a text that is all there."""
    passed: Passed = Chain([made]).whole(text)
    return passed.text, passed.block.reason if passed.block else ""
