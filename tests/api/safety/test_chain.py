"""Tokens leave with their text, and never when that text was changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isotoken.api.safety.chain import Chain, Token
from isotoken.api.safety.filters import Filter, FilterContext
from isotoken.api.safety.guards import length
from isotoken.api.safety.pii import pii

from .test_block_list import made as block_list
from .texts import pieces, planted

CONTEXT = FilterContext("outputs", pytest.fail)
PII = pii({}, CONTEXT)


def chain(*filters: Filter) -> Chain:
    return Chain(filters)


def fed(one: Chain, parts: list[str]) -> tuple[str, list[Token]]:
    """Feed each part as one token."""
    text, tokens, offset = "", [], 0
    for i, part in enumerate(parts):
        token = Token(i, None, offset, offset + len(part))
        offset += len(part)
        passed = one.feed(part, [token], final=i == len(parts) - 1)
        text += passed.text
        tokens += passed.tokens
        if passed.block is not None:
            break
    return text, tokens


def test_tokens_of_a_redacted_item_do_not_leave() -> None:
    parts = ["Mail", " to", " john", "@exam", "ple.com", ",", " or", " not"]
    text, tokens = fed(chain(PII()), parts)
    assert text == "Mail to [EMAIL], or not"
    assert [token.token_id for token in tokens] == [0, 1, 5, 6, 7]  # the space before john is a part of its token


@settings(max_examples=100, deadline=None)
@given(text_and_items=planted(), cuts=st.lists(st.integers(0, 200), max_size=60))
def test_a_token_leaves_where_its_text_stands(text_and_items: tuple[str, list[str]], cuts: list[int]) -> None:
    """Through two filters that both change the text: the second one sees what the first one left."""
    text, items = text_and_items
    parts = pieces(text, cuts)
    two = [PII(), block_list(words=["capital", "email"], action="redact", label="[X]")]
    released, tokens = fed(chain(*two), parts)
    expected = chain(PII(), block_list(words=["capital", "email"], action="redact", label="[X]")).whole(text).text
    assert released == expected
    for token in tokens:
        assert released[token.start : token.stop] == parts[token.token_id]
    shown = "".join(parts[token.token_id] for token in tokens)
    assert all(item not in shown for item in items)
    if expected == text:
        assert len(tokens) == len(parts)


def test_after_a_block_later_filters_release_what_came_before_it() -> None:
    one = chain(block_list(words=["stop"]), PII())
    text, tokens = fed(one, ["mail", " a@b.com", " and", " stop", " it"])
    assert text == "mail [EMAIL] and "
    assert [token.token_id for token in tokens] == [0, 2]


def test_the_earlier_end_of_two_counts() -> None:
    one = chain(block_list(words=["stop"]), length({"max_characters": 4}, CONTEXT)())
    passed = one.whole("a long text, stop")
    assert passed.text == "a lo"
    assert passed.block is not None
    assert passed.block.finish_reason == "length"


def test_special_tokens_leave_where_they_are() -> None:
    one = chain(PII())
    tokens = [Token(1, None, 0, 0), Token(2, None, 0, 5), Token(3, None, 5, 5)]
    passed = one.feed("hello", tokens, final=True)
    assert [token.token_id for token in passed.tokens] == [1, 2, 3]
    beyond = chain(PII()).feed("hello", [Token(2, None, 0, 5), Token(9, None, 5, 9)], final=True)
    assert [token.token_id for token in beyond.tokens] == [2]  # of a stop string, whose text is not shown
