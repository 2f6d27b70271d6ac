"""The benchmark of speculation: it guesses as often right as it is told to, checks tokens, and writes what it found."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from isotoken.core.capabilities import not_implemented
from isotoken.core.types import DecodeParams
from isotoken.plugins.manager import Plugins

sys.path.append(str(Path(__file__).parents[2]))
from benchmarks.speculation.__main__ import main
from benchmarks.speculation.controlled import LOOK_UP, Dial
from benchmarks.speculation.figures import verify_cost
from benchmarks.speculation.stream import NEAR_TIE, Stream, difference

GREEDY = DecodeParams(max_tokens=48, temperature=0.0, ignore_eos=True)
PROMPT = [5, 900, 17, 31, 8]


@pytest.fixture(scope="module")
def streams(tiny: Path) -> tuple[Stream, Stream, Dial]:
    dial = Dial()
    settings = {"backend": "reference", "dtype": "float32", "max_model_len": 128, "max_num_seqs": 1}
    plain = Stream(tiny, Plugins.load(), **settings)
    plugins = Plugins.load([("controlled", dial)])
    return plain, Stream(tiny, plugins, **settings, drafter="controlled", num_draft_tokens=4, fixed_drafts=True), dial


@pytest.mark.parametrize("agreement", [0.0, 0.6, 1.0])
def test_guesses_are_right_as_often_as_they_are_told_to_be(
    streams: tuple[Stream, Stream, Dial], agreement: float
) -> None:
    plain, drafted, dial = streams
    base = plain.run(PROMPT, GREEDY)
    dial.turn(agreement, base.tokens, seed=3)
    answer = drafted.run(PROMPT, GREEDY)
    assert answer.tokens == base.tokens
    assert difference(plain, drafted, PROMPT, base.tokens, answer.tokens) == ""
    tally = dial.tally
    right = [dice < agreement for dice in dial.dice]
    steps, place = 0, 1  # the prompt's step brings the first
    while place < 48:
        run = next((index for index, ok in enumerate(right[place : place + 4]) if not ok), 4)
        place, steps = min(place + run + 1, 48), steps + 1
    assert (tally.steps, tally.tokens, tally.accepted) == (steps, 47, 47 - steps)
    assert sum(map(len, tally.seconds.values())) == steps


def test_only_a_near_tie_may_fall_otherwise_and_only_where_equal_bits_are_not_promised(
    streams: tuple[Stream, Stream, Dial], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, drafted, _ = streams
    tokens = plain.run(PROMPT, GREEDY).tokens
    other = [*tokens[:7], (tokens[7] + 1) % 1000, *tokens[8:]]
    with pytest.raises(AssertionError, match="batch_invariant is declared"):
        difference(plain, drafted, PROMPT, tokens, other)
    capabilities = replace(drafted.built.capabilities, batch_invariant=not_implemented("a test"))
    monkeypatch.setattr(drafted, "built", drafted.built._replace(capabilities=capabilities))
    with pytest.raises(AssertionError, match=r"token 7 is .* less likely"):
        difference(plain, drafted, PROMPT, tokens, other)
    monkeypatch.setitem(NEAR_TIE, "float32", 100.0)
    assert difference(plain, drafted, PROMPT, tokens, other).endswith("a near-tie")


def test_it_runs_and_writes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ISOTOKEN_BENCH_CACHE", str(cache))
    file = tmp_path / "found" / "run.json"
    flags = ["--size", "tiny", "--backend", "torch", "--dtype", "float32", "--rounds", "2", "--share", "2"]
    assert (
        main([*flags, "--threads", "1", "--agreements", "0.75", "0", "--verify-cost", "0.05", "--json", str(file)]) == 0
    )
    found = json.loads(file.read_text())
    assert [row["agreement"] for row in found["rows"]] == [0.75, 0.0, LOOK_UP]
    right, wrong, look_up = found["rows"]
    assert right["acceptance"] > 0.2 > wrong["acceptance"] == 0
    assert right["tokens_per_step"] > 2 and wrong["tokens_per_step"] == 1 and look_up["tokens_per_step"] > 1.5
    assert wrong["stops"] >= 2 and wrong["drafts_per_step"] < 0.5
    assert right["target"] == 2 and len(right["gains"]) == len(right["speeds"]) == 2
    assert found["verify_cost"] is not None and "1" in found["step_seconds"]
    printed = capsys.readouterr()
    assert printed.err.count("the same tokens as without") == 3
    assert "75%" in printed.out and "target 2.0" in printed.out and "verifying one costs 0.05" in printed.out


def test_the_cost_of_a_guess_is_the_slope_over_the_step_of_one() -> None:
    assert verify_cost({1: 2.0, 2: 2.2, 5: 2.8, 8: 3.4}) == pytest.approx(0.1)
    assert verify_cost({1: 2.0}) is None and verify_cost({2: 1.0}) is None
