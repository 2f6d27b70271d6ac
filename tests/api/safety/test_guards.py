"""Texts that are too long, and texts that go round in circles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isotoken.api.safety.filters import FilterContext
from isotoken.api.safety.guards import length, repetition

from .texts import in_pieces, whole

OUTPUTS = FilterContext("outputs", pytest.fail)
CUTS = st.lists(st.integers(0, 3000), max_size=30)
SMALL = {"min_repeats": 4, "max_period": 20, "min_characters": 64}


@given(text=st.text(max_size=30), cuts=CUTS)
def test_length(text: str, cuts: list[int]) -> None:
    released, reason = in_pieces(length({"max_characters": 12}, OUTPUTS)(), text, cuts)
    assert released == text[:12]
    assert bool(reason) == (len(text) > 12)


@pytest.mark.parametrize("unit", ["a", "no, ", "I am sorry. ", "x" * 7 + "\n", "The same sentence, again and again. "])
def test_a_loop_is_ended_soon(unit: str) -> None:
    text = "A proper beginning, with all that belongs to it. " + unit * 450
    released, reason = whole(repetition({}, OUTPUTS)(), text)
    assert reason
    assert len(released) < 49 + max(12 * len(unit), 400) + 100
    assert in_pieces(repetition({}, OUTPUTS)(), text, range(0, len(text), 5)) == (released, reason)


@pytest.mark.parametrize(
    "text",
    [
        "-" * 300,
        "".join(f"{i}, " for i in range(1000)),
        "".join(f"| {i} | {i * i} | yes |\n" for i in range(200)),
        "\n".join(f"Step {i}: measure, write down, compare with the table." for i in range(100)),
    ],
)
def test_what_only_resembles_itself_passes(text: str) -> None:
    assert whole(repetition({}, OUTPUTS)(), text) == (text, "")


@settings(max_examples=100, deadline=None)
@given(unit=st.text("abc", min_size=1, max_size=8), times=st.integers(1, 60), cuts=CUTS)
def test_pieces_make_no_difference(unit: str, times: int, cuts: list[int]) -> None:
    text = "beginning " + unit * times
    assert in_pieces(repetition(SMALL, OUTPUTS)(), text, cuts) == whole(repetition(SMALL, OUTPUTS)(), text)


@pytest.mark.parametrize("options", [{}, {"max_characters": 0}, {"max_charaters": 5}])
def test_wrong_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_char"):
        length(options, OUTPUTS)
