"""Personal data and secrets are found, whole texts and texts in pieces alike, and what only looks like them is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isotoken.api.safety.chain import Chain
from isotoken.api.safety.filters import Filter, FilterContext
from isotoken.api.safety.pii import pii
from pydantic import ValidationError

from .texts import ITEMS, in_pieces, pieces, planted, whole

CONTEXT = FilterContext("outputs", pytest.fail)
MAKE = pii({"phone_regions": ["US"]}, CONTEXT)


def made(**options: object) -> Filter:
    return pii(options, CONTEXT)()


@pytest.mark.parametrize(("kind", "item"), [(kind, item) for kind, items in ITEMS.items() for item in items])
def test_items_are_replaced(kind: str, item: str) -> None:
    text = f"Before it {item}, and after."
    assert whole(made(), text) == (f"Before it [{kind.upper()}], and after.", "")
    assert whole(made(kinds=[kind]), text)[0] == f"Before it [{kind.upper()}], and after."
    assert item not in whole(made(), f"({item})")[0]
    assert item not in whole(made(), item)[0]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 has a wrong checksum.",
        "DE89 3704 0044 0532 0130 01 has a wrong checksum.",
        "Version 1.2.3 of 2026-11-22 at 18:30:05, built 20261122183005.",
        "The server 192.168.100.200 listens on 8080, pid 123456.",
        "3.14159265358979 and 1.602e-19 and 1,234,567.89",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
        "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "id 123e4567-e89b-12d3-a456-426614174000",
        "a_long_function_name_made_of_several_words_v2 and AnotherClassNameForSomethingElse2",
        "The token was lost; the password is on a note, the secret: kept.",
        "user@localhost and @mention and a@b",
        'password = "${PASSWORD}" and api_key: <your key>',
        "Authorization: Bearer <token>",
        'token = next_token2, secret: self.keys2.pop(), password = rows[17].value, api_key = os.getenv("KEY1")',
        "The largest is 2147483647, and 3.14159265358 is near enough.",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert whole(made(), text) == (text, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('password = "hunter22"', 'password = "[SECRET]"'),
        ("DB_PASSWORD=x9!kf-22-ab", "DB_PASSWORD=[SECRET]"),
        ("Authorization: Bearer abc123DEF456ghi", "Authorization: Bearer [SECRET]"),
        ('{"api_key": "0a1b2c3d4e5f"}', '{"api_key": "[SECRET]"}'),
        (
            "x\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc+/=\n-----END RSA PRIVATE KEY-----\ny",
            "x\n[SECRET]\ny",
        ),
        ("x -----BEGIN PRIVATE KEY-----\nMIIE and no end", "x [SECRET]"),
        ("1 4111 1111 1111 1111 12/27", "1 [CARD] 12/27"),
        ("DE89 3704 0044 0532 0130 00 is mine", "[IBAN] is mine"),
        ("on 2026-11-22 202-555-0143 rang", "on 2026-11-22 [PHONE] rang"),
        ("mail me: john@example.com.", "mail me: [EMAIL]."),
        ("see:john@example.com--", "see:[EMAIL]--"),
    ],
)
def test_the_rest_of_a_text_stays(text: str, expected: str) -> None:
    assert whole(made(), text)[0] == expected


@settings(max_examples=120, deadline=None)
@given(text_and_items=planted(), cuts=st.lists(st.integers(0, 200), max_size=40))
def test_pieces_make_no_difference_and_no_item_leaves(text_and_items: tuple[str, list[str]], cuts: list[int]) -> None:
    text, items = text_and_items
    expected, _ = whole(MAKE(), text)
    assert all(item not in expected for item in items)
    assert in_pieces(MAKE(), text, cuts)[0] == expected
    assert in_pieces(MAKE(), text, range(len(text)))[0] == expected


@settings(max_examples=60, deadline=None)
@given(text_and_items=planted(), cuts=st.lists(st.integers(0, 200), max_size=40))
def test_what_was_released_is_never_taken_back(text_and_items: tuple[str, list[str]], cuts: list[int]) -> None:
    """A filter that is closed after any piece has released what the text so far, taken whole, begins with."""
    text, _ = text_and_items
    chain, released, seen = Chain([MAKE()]), "", ""
    for part in pieces(text, cuts):
        released += chain.feed(part, [], final=False).text
        seen += part
        assert whole(MAKE(), seen)[0].startswith(released)


@pytest.mark.parametrize(("kind", "item"), [(kind, items[0]) for kind, items in ITEMS.items()])
def test_a_text_is_blocked_before_an_item(kind: str, item: str) -> None:
    text = f"Before {item} and after"
    for cuts in ([], range(len(text))):
        released, reason = in_pieces(made(action="block"), text, cuts)
        assert released.strip() == "Before"
        assert reason.startswith("it holds")
        assert item not in reason


def test_flagged_items_stay_and_are_counted() -> None:
    chain = Chain([made(action="flag", actions={"email": "redact"}, labels={"email": "<mail>"})])
    passed = chain.whole("a@example.com or 4111 1111 1111 1111")
    assert passed.text == "<mail> or 4111 1111 1111 1111"
    assert [(one.kind, one.action) for one in chain.findings] == [("email", "redact"), ("card", "flag")]


def test_national_numbers_of_digits_only_are_found_when_asked_for() -> None:
    assert whole(made(bare_phones=True), "call 2025550143 now")[0] == "call [PHONE] now"
    assert whole(made(), "call 2025550143 or 202-555-0143 now")[0] == "call 2025550143 or [PHONE] now"


@pytest.mark.parametrize("text", [r'{"to": "x\njohn@example.com"}', r'{"to": "\u00e9john@example.com"}'])
def test_the_arguments_of_tools_stay_json(text: str) -> None:
    import json

    released = in_pieces(made(), text, range(len(text)))[0]
    assert "[EMAIL]" in json.loads(released)["to"]


def test_prose_is_held_back_by_a_word_at_most() -> None:
    chain = Chain([made()])
    text = "The capital of France is Paris, and it has two million inhabitants.\n"
    longest = released = 0
    for i, character in enumerate(text, 1):
        released += len(chain.feed(character, [], final=False).text)
        longest = max(longest, i - released)
    assert longest == len("inhabitants.")


@pytest.mark.parametrize("options", [{"kinds": []}, {"kinds": ["name"]}, {"phone_regions": ["XX"]}, {"acton": "block"}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises((ValueError, ValidationError)):
        pii(options, CONTEXT)
