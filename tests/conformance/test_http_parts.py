"""The parts of the suite over a server: how it reads streams, and how it tells a near-tie from a fault."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from isotoken.conformance.http.checks import spells
from isotoken.conformance.http.compare import Told, agree
from isotoken.conformance.http.stream import Stream
from isotoken.conformance.http.table import servers_table
from isotoken.conformance.matrix import Contents, matrix
from isotoken.conformance.spec import http_behaviours

GOOD = b'data: {"id": "1", "choices": [{"index": 0, "text": "a"}]}\n\n'


def read(*chunks: bytes) -> Stream:
    return Stream("text/event-stream").read(chunks)


def test_a_good_stream() -> None:
    stream = read(GOOD[:20], GOOD[20:], b": ping\n\n", GOOD.replace(b'"a"', '"é"'.encode()), b"data: [DONE]\n\n")
    assert (stream.faults, stream.num_done, stream.text(), stream.indices) == ([], 1, "aé", [0])
    assert read(GOOD.replace(b"\n", b"\r\n"), b"data: [DONE]\r\n\r\n").faults == []


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (GOOD[:-1], "no blank line"),
        (GOOD + b"data: {oops\n\n", "no JSON object"),
        (GOOD + b"data: [1]\n\n", "no JSON object"),
        (GOOD.replace(b"data: ", b""), "not one line of data"),
        (GOOD[:-1] + GOOD, "not one line of data"),
        (b"data: [DONE]\n\n" + GOOD, "after [DONE]"),
        (GOOD.replace(b'"a"', b'"\xf0\x9f"'), "not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_stream_is_noted(raw: bytes, fault: str) -> None:
    assert fault in " ".join(read(raw).faults)


@pytest.mark.parametrize(
    ("tokens", "text", "good"),
    [
        (["a", " b"], "a b", True),
        (["a", "b"], "a b", False),
        (["a"], "a b", False),
        (["a", "<|end|>"], "a", True),
        (["<", "b>"], "<b>", True),
        (["bytes:\\xf0\\x9f", "bytes:\\x99\\x82"], "🙂", True),
        (["bytes:\\xf0\\x9f", "x"], "\ufffdx", True),
        ([[240, 159], [153, 130]], "🙂", True),
        ([[240, 159]], "🙂", False),
    ],
)
def test_tokens_spell_a_text(tokens: list[Any], text: str, good: bool) -> None:
    assert spells(tokens, text) is good


def server(near_tie: float) -> Any:
    return SimpleNamespace(facts=SimpleNamespace(near_tie=near_tie), compared=0, near_ties=0)


def fork(token: str, margin: float, *, shift: float = 0.0, drift: float = 0.0) -> Told:
    """A text whose second token was a choice between b and c, `margin` apart."""
    tops = {"b": -1.0 + shift, "c": -1.0 - margin + shift}
    return Told("a" + token, ["a", token], [-0.5 + drift, tops[token]], [{"a": -0.5 + drift}, tops])


def test_equal_texts_agree() -> None:
    seen = server(0.0)
    agree(seen, fork("b", 1.0), fork("b", 1.0, shift=0.3), greedy=True, where="")
    assert (seen.compared, seen.near_ties) == (1, 0)


def test_a_near_tie_is_counted() -> None:
    seen = server(0.1)
    agree(seen, fork("b", 0.02), fork("c", 0.02, shift=0.01), greedy=True, where="")
    assert (seen.compared, seen.near_ties) == (1, 1)


@pytest.mark.parametrize(
    ("near_tie", "other", "greedy", "told"),
    [
        (0.0, fork("c", 0.02), True, "see --near-tie"),
        (0.1, fork("c", 0.5), True, "0.5 apart, no near-tie"),
        (0.1, fork("c", 0.02, drift=0.4), True, "log-probability that is 0.4 off before"),
        (0.1, fork("c", 0.02, shift=0.3), False, "0.3 off"),
        (0.1, Told("ax", ["a", "x"], [-0.5, -3.0], [{"a": -0.5}, {"x": -3.0}]), False, "inf off"),
        (0.1, Told("x", ["a", "b"], [-0.5, -1.0], [{"a": -0.5}, {"b": -1.0}]), True, "though the tokens are the same"),
    ],
)
def test_what_is_no_near_tie_fails(near_tie: float, other: Told, greedy: bool, told: str) -> None:
    seen = server(near_tie)
    with pytest.raises(AssertionError, match="from character") as failure:
        agree(seen, fork("b", 0.02), other, greedy=greedy, where="among others")
    assert told in str(failure.value)
    assert seen.near_ties == 0


def report(outcome: str, **more: Any) -> dict[str, Any]:
    behaviours = {number: {"outcome": outcome, "tests": 1, **more} for number in http_behaviours()}
    target = {"kind": "server", "owned_by": "vllm", "model": "m", "near_tie": 0.3, "behaviours": behaviours}
    numbers = {"compared": 76, "near_ties": 2}
    return {
        "suite_version": "1.1",
        "isotoken_version": "0.1.0",
        "targets": [{**target, "numbers": numbers, "absences": {}}],
    }


def test_the_matrix_has_a_column_for_each_server() -> None:
    text = matrix(Contents([report("passed"), report("absent", reasons=["not offered"])]))
    assert "| Behaviour | vllm m | vllm m |" in text
    assert "| HTTP-6 Usage adds up | ✓ | – |" in text
    assert "| 2 of 76 within 0.3 | 2 of 76 within 0.3 |" in text
    assert "- vllm m: HTTP-6 not offered" in text
    assert all(f"| {number} " in text for number in http_behaviours())
    assert "## Invariance" not in text, "there is no backend in it"
    assert servers_table([]) == []
