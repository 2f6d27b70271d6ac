"""Words, phrases and patterns of an operator: found in pieces as in the whole, and never at an attacker's price."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isotoken.api.safety.block_list import block_list
from isotoken.api.safety.filters import Filter, FilterContext

from .texts import in_pieces, whole

CONTEXT = FilterContext("outputs", pytest.fail)


def made(**options: object) -> Filter:
    return block_list(options, CONTEXT)()


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (["foo"], "a FOO b", "a [REMOVED] b"),
        (["foo"], "food afoo foo_x", "food afoo foo_x"),
        (["na"], "naïve", "naïve"),
        (["straße"], "die STRASSE hier", "die [REMOVED] hier"),
        (["red fish", "red fish blue fish"], "red fish, blue fish", "[REMOVED]"),
        (["red fish", "red fish blue fish"], "red fish blue cat", "[REMOVED] blue cat"),
        (["red fish"], "red - fish", "[REMOVED]"),
        (["red fish"], "red     fish", "red     fish"),
        (["日本"], "in 日本 now", "in [REMOVED] now"),
    ],
)
def test_words(words: list[str], text: str, expected: str) -> None:
    for cuts in ([], range(len(text))):
        assert in_pieces(made(words=words, action="redact"), text, cuts)[0] == expected


@settings(max_examples=120, deadline=None)
@given(
    phrases=st.lists(st.text("ab ", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=4),
    text=st.text("ab ,", max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
def test_pieces_make_no_difference(phrases: list[str], text: str, cuts: list[int]) -> None:
    expected = whole(made(words=phrases, action="redact"), text)
    assert in_pieces(made(words=phrases, action="redact"), text, cuts) == expected


@settings(max_examples=100, deadline=None)
@given(text=st.text("projectzé X9\n", max_size=40), cuts=st.lists(st.integers(0, 40), max_size=8))
def test_patterns_in_pieces(text: str, cuts: list[int]) -> None:
    options = {"patterns": [r"(?i)project\s+x\b", r"\bz[0-9]+"], "words": ["eject"], "action": "redact"}
    assert in_pieces(made(**options), text, cuts) == whole(made(**options), text)


def test_a_pattern_and_its_name() -> None:
    released, reason = in_pieces(made(name="projects", patterns=[r"(?i)project\s+x"]), "On Project  X", [12])
    assert released == "On "
    assert reason == "it holds something of the list 'projects'"


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# a comment\nfoo\n\nred fish\n")
    assert whole(made(file=str(path), action="redact"), "foo and red fish")[0] == "[REMOVED] and [REMOVED]"
    with pytest.raises(ValueError, match="cannot be read"):
        made(file=str(tmp_path / "none"))


def test_hostile_patterns_take_no_longer_than_others() -> None:
    """With an engine that tries all ways this would not end in anybody's lifetime."""
    hostile = made(patterns=["(?:a|a|aa)*(?:a|a|aa)*(?:a|aa)*b"], longest=30)
    text = "a" * 20_000
    assert whole(hostile, text)[0] == text
    piecemeal = made(patterns=["(?:x+x+)+y"], longest=20)
    assert in_pieces(piecemeal, "x" * 500, range(0, 500, 7))[0] == "x" * 500


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"words": ["!?"]},
        {"patterns": ["("]},
        {"patterns": ["(?=a)b"]},
        {"patterns": ["a*"]},
        {"patterns": ["^a"]},
        {"patterns": ["((a{100}){100}){100}"]},
        {"patterns": ["x" * 2000]},
    ],
)
def test_wrong_lists_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"list|word|pattern"):
        made(**options)
