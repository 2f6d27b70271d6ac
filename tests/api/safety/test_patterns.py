"""A text in pieces is treated as the whole text is, whatever the expression and wherever the cuts are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isotoken.api.safety.patterns import expression
from isotoken.api.safety.spans import Kind, RegexMatcher, Rule, SpanFilter

from .texts import in_pieces, whole

KIND = Kind("kind", "redact", "<>", "it is there")

ATOMS = st.sampled_from(["a", "b", "c", "[ab]", "[^a]", ".", r"\b", "(?!a)", "(?=b)", "(?<!c)", "(?<=a)"])
REPEATS = st.sampled_from(["?", "*", "+", "{1,3}", "{2}", "{2,}", "+?", "??"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("(?:{}){}".format, inner, REPEATS)
        | st.builds("{}{}".format, inner, inner)
        | st.builds("(?:{}|{})".format, inner, inner)
    ),
    max_leaves=6,
)


def span_filter(patterns: list[str], longest: int = 4) -> SpanFilter:
    rules = [Rule(KIND, *expression(pattern, longest=longest)) for pattern in patterns]
    return SpanFilter(RegexMatcher(rules, re.compile))


@settings(max_examples=200, deadline=None)
@given(
    patterns=st.lists(PATTERNS, min_size=1, max_size=2),
    text=st.text("abc ", max_size=24),
    cuts=st.lists(st.integers(0, 24), max_size=8),
)
def test_pieces_make_no_difference(patterns: list[str], text: str, cuts: list[int]) -> None:
    try:
        made = span_filter(patterns)
    except (ValueError, re.error):
        return  # it matches nothing at all, too
    assert in_pieces(made, text, cuts) == whole(span_filter(patterns), text)


@pytest.mark.parametrize(
    ("pattern", "text", "held"),
    [
        ("cat", "the ca", "ca"),
        ("cat", "the cat", ""),
        ("cats?", "the cat", "cat"),
        ("cat(?!s)", "the cat", "cat"),
        ("(?<![a-z])cat", "concat ca", "ca"),
        ("a{3,5}b", "xaaaa", "aaaa"),
        ("a+", "xaaa", "aaa"),
    ],
)
def test_only_what_may_become_a_match_is_held_back(pattern: str, text: str, held: str) -> None:
    made = span_filter([pattern], longest=100)
    assert text.endswith(held)
    released = made.feed(text).text
    expected = whole(span_filter([pattern], longest=100), text[: len(text) - len(held)])[0]
    assert released == expected


@pytest.mark.parametrize("pattern", ["", "a*", "^a", "a$", r"(a)\1", "(?s:.)", "(?<=ab)c", "[", "(?=abc)d"])
def test_what_cannot_be_done_in_pieces_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        expression(pattern)


def test_what_is_held_back_is_bounded() -> None:
    """`+` means at most so many: a text that goes on matching is let go of, and replaced, as it comes."""
    made = span_filter(["a+"], longest=100)
    held = 0
    for _ in range(2000):
        made.feed("a")
        held = max(held, len(made._text))
    assert held <= 110
