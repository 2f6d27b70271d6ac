"""The lexicon on a small set of sentences, and the filter that reads each sentence before it may pass."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isotoken.api.safety.filters import Filter, FilterContext
from isotoken.api.safety.lexicon import CATEGORIES, LexiconClassifier
from isotoken.api.safety.moderation import moderation

from .moderation_set import HARMFUL, HARMLESS
from .texts import in_pieces, whole

CLASSIFIER = LexiconClassifier()
CONTEXT = FilterContext("outputs", lambda name: CLASSIFIER)


def made(**options: object) -> Filter:
    return moderation(options, CONTEXT)()


def flagged(text: str) -> set[str]:
    (scores,) = CLASSIFIER.classify([text])
    assert tuple(scores) == CATEGORIES
    assert all(0 <= score <= 1 for score in scores.values())
    return {category for category, score in scores.items() if score >= 0.5}


def test_the_figures_of_the_documentation() -> None:
    """docs/safety.md tells them: of 52 harmful sentences found, in the right category, of 75 others flagged."""
    found = [(category, flagged(text)) for category, text in HARMFUL]
    any_found = sum(bool(categories) for _, categories in found)
    right = sum(category in categories for category, categories in found)
    wrongly = sum(bool(flagged(text)) for text in HARMLESS)
    assert (any_found, right, wrongly, len(HARMFUL), len(HARMLESS)) == (45, 44, 3, 52, 75)


def test_spelling_that_means_nothing_is_overlooked() -> None:
    assert flagged("I WANT TO   KILL MYSELF") == flagged("I want to kill myself.") != set()


def test_a_sentence_is_held_back_until_it_was_read() -> None:
    one = made()
    assert one.feed("A friendly word. I want to kill").text == "A friendly word. "
    release = one.feed(" myself. Bye")
    assert release.text == ""
    assert release.block is not None
    assert "self-harm" in release.block.reason
    assert "kill" not in release.block.reason


def test_two_sentences_are_read_together() -> None:
    assert whole(made(), "I know where. You live here.")[1] == ""
    assert whole(made(categories=["harassment/threatening"]), "Watch your\nback, man.")[1] != ""


@settings(max_examples=100, deadline=None)
@given(
    sentences=st.lists(st.sampled_from([text for _, text in HARMFUL[:10]] + list(HARMLESS[:20])), max_size=5),
    cuts=st.lists(st.integers(0, 300), max_size=20),
)
def test_pieces_make_no_difference(sentences: list[str], cuts: list[int]) -> None:
    text = " ".join(sentences)
    assert in_pieces(made(max_characters=60), text, cuts) == whole(made(max_characters=60), text)


@pytest.mark.parametrize("options", [{"categories": ["spam"]}, {"threshold": 0}, {"action": "redact"}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"spam|threshold|action"):
        made(**options)
