"""Levels and certificates: what they count, what they refuse, and that a lie does not get through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from isotoken.conformance.arranged import arrange
from isotoken.conformance.certificate import against_each_other, against_oracle, certify
from isotoken.conformance.controls import CONTROLS
from isotoken.conformance.forced import force
from isotoken.conformance.levels import all_pairs, failures, level_of
from isotoken.conformance.oracle import Oracle, Trace
from isotoken.conformance.quantized import quantized
from isotoken.conformance.same_logits import Hand, agree
from isotoken.conformance.sides import label, load, parse
from isotoken.conformance.subjects import Subject, random_subjects, trained_subject
from isotoken.conformance.targets import BOUNDS, Precision
from isotoken.core.batch import SamplingRows
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.sampling import HostSampler
from isotoken.plugins.manager import Plugins

from .suite import FIXTURE


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load()


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    """The random models with two short sequences each."""
    found = random_subjects(tmp_path_factory.mktemp("models"))
    return {s.name: replace(s, sequences=tuple(tokens[:90] for tokens in s.sequences[:2])) for s in found}


def trace_of(rows: list[list[float]]) -> Trace:
    logits = np.array(rows, np.float64)
    return Trace(logits, np.full(len(logits), np.inf))


def test_a_certificate_counts_what_it_sees() -> None:
    """Rows of largest magnitude 10 under a bound of 0.1, which decides margins above 2."""
    trace = trace_of([[10, 7, 0], [10, 9, 0], [10, 9, 0], [10, 7, 0], [10, 7, 0], [10, 9, 0]])
    got = trace.logits.copy()
    got[2] = [9.4, 9.5, 0]  # a near-tie that falls otherwise
    got[3] = [8.4, 8.5, 0]  # decided, and wrong; beyond the bound too
    got[4, 2] = 1.5  # beyond the bound, the token as it should be
    seen = certify([against_oracle(trace, got, 0.0)], 0.1)
    assert (seen.tokens, seen.decided, seen.near_ties, seen.flips, seen.wrong, seen.beyond) == (6, 3, 3, 1, 1, 2)
    assert seen.max_error == pytest.approx(0.16)
    assert seen.min_margin == pytest.approx(1.0)
    assert seen.widest_flip == pytest.approx(3.0)
    assert seen.near_ties_at_max_error == 6
    assert not seen.holds
    assert certify([against_oracle(trace, trace.logits, 0.0)], 0.1).holds


def test_routing_that_is_close_is_not_judged() -> None:
    trace = Trace(np.array([[10.0, 7.0], [10.0, 7.0]]), np.array([np.inf, 0.1]))
    seen = certify([against_oracle(trace, trace.logits[:, ::-1], 0.5)], 0.1)
    assert (seen.tokens, seen.unjudged, seen.wrong, seen.beyond) == (2, 1, 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_lies_within_the_bound_is_certified(seed: int) -> None:
    """The theorem: two computations within the bound agree wherever the margin exceeds twice the bound."""
    dice = np.random.default_rng(seed)
    trace = trace_of((4 * dice.standard_normal((400, 60))).tolist())
    bound = 0.02
    size = abs(trace.logits).max(axis=1, keepdims=True)
    one, other = (trace.logits + bound * size * dice.uniform(-1, 1, trace.logits.shape) for _ in range(2))
    for got in (one, other):
        assert certify([against_oracle(trace, got, 0.0)], bound).holds
    pair = certify([against_each_other(trace, one, other, 0.0)], 2 * bound, within=bound)
    assert pair.holds
    assert pair.decided > 200
    assert pair.flips > 0, "the near-ties here do fall both ways, so the margin is what makes the others agree"
    assert not certify([against_oracle(trace, one, 0.0)], bound / 2).holds


@pytest.mark.parametrize("name", CONTROLS)
def test_negative_controls_are_refused(name: str, subjects: dict[str, Subject]) -> None:
    subject = subjects["llama"]
    tokens = list(subject.sequences[0])
    trace = subject.oracle(None).trace(tokens)
    honest = certify([against_oracle(trace, trace.logits.astype(np.float32), 0.0)], BOUNDS["float32"])
    lies = certify([against_oracle(trace, CONTROLS[name](subject, tokens, trace.logits), 0.0)], BOUNDS["float32"])
    assert honest.holds
    assert not lies.holds


@pytest.mark.parametrize(("quantization", "told_apart"), [("int4", True), ("int8", False)])
def test_what_spec_md_says_of_weights_rounded_otherwise(
    quantization: str, told_apart: bool, subjects: dict[str, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not rounded, or in blocks of 64: 4-bit weights are refused, and 8-bit ones admittedly are not."""
    subject, precision = subjects["llama"], Precision("float32", quantization)
    tokens = list(subject.sequences[0])
    trace = subject.oracle(quantization).trace(tokens)
    monkeypatch.setattr("isotoken.core.rounded.BLOCK", 64)
    for weights in (subject.weights, quantized(subject.weights, quantization)):
        got = Oracle(subject.model, weights).trace(tokens).logits
        seen = certify([against_oracle(trace, got, precision.routing_bound)], precision.bound, within=precision.tie)
        assert seen.holds is not told_apart


@pytest.mark.parametrize("side", ["reference:float64", "torch", "onnxruntime"])
def test_forcing_gives_every_position(side: str, plugins: Plugins, subjects: dict[str, Subject]) -> None:
    """As a prompt and one by one, several sequences at once, against the oracle."""
    target = parse(side, plugins)
    for name in ("llama", "gemma2"):
        subject = subjects[name]
        backend, runner = load(
            target, plugins, Checkpoint.open(subject.folder), max_model_len=90, max_num_seqs=4, max_num_logits=40
        )
        sequences = [subject.sequences[0], subject.sequences[1][:77]]
        for tokens, got in zip(sequences, force(runner, backend.capabilities, sequences), strict=True):
            exact = subject.oracle(None).trace(list(tokens)).logits
            assert got.shape == exact.shape
            assert abs(got - exact).max() < 2e-5 * abs(exact).max()
        runner.close()


def test_samplers_are_compared_on_the_same_logits(plugins: Plugins, subjects: dict[str, Subject]) -> None:
    subject = subjects["llama"]
    logits = subject.oracle(None).trace(list(subject.sequences[0])).logits
    hands = []
    for side in ("reference", "torch"):
        checkpoint = Checkpoint.open(subject.folder)
        hands.append(Hand(load(parse(side, plugins), plugins, checkpoint, max_model_len=90, max_num_seqs=4)[1]))
    for found in agree(hands, logits):
        assert (found.draws, found.wrong) == (88, 0)
    hands[0].sampler = Deaf()
    assert agree(hands, logits)[0].wrong > 5


class Deaf:
    """Draws well, but from seeds of its own."""

    def sample(self, logits: object, rows: SamplingRows) -> object:
        return HostSampler().sample(logits, replace(rows, seeds=rows.seeds + np.uint64(1)))


def test_one_backend_says_the_same_in_every_arrangement(plugins: Plugins, tmp_path: Path) -> None:
    found = arrange(parse("torch", plugins), plugins, tmp_path)
    assert found.holds
    assert found.goldens
    assert len(found.differing) == 5
    assert not any(found.differing.values())


def test_the_trained_subject_has_enough_to_say() -> None:
    subject = trained_subject()
    assert sum(map(len, subject.sequences)) >= 10_000
    assert len({tokens[:64] for tokens in subject.sequences}) == len(subject.sequences)
    assert subject.model.tied
    assert max(map(max, subject.sequences)) < subject.model.vocab_size


def test_sides_are_read_as_users_write_them(plugins: Plugins) -> None:
    assert label(parse("torch", plugins)) == "torch float32"
    assert label(parse("torch:cpu:bfloat16", plugins)) == "torch bfloat16"
    assert label(parse("onnxruntime:int8", plugins)) == "onnxruntime float32 int8"
    with pytest.raises(ValueError, match="'int8' is not declared; torch has dtype: bfloat16, float16, float32"):
        parse("torch:int8", plugins)
    with pytest.raises(ValueError, match="'float16' is one word too many"):
        parse("torch:bfloat16:float16", plugins)
    exact, coarse, small = (parse(s, plugins) for s in ("torch", "torch:bfloat16", "onnxruntime:int8"))
    assert [level_of(pair) for pair in all_pairs([exact, coarse])] == ["L3"]
    assert level_of((exact, parse("reference:float64", plugins))) == "L2"
    assert all_pairs([small, exact]) == [(exact, small)]


@pytest.mark.parametrize(
    ("target", "decided", "enough"),
    [
        ("some float32", 97, False),
        ("some float32 cuda", 97, False),
        ("some float32", 98, True),
        ("some bfloat16", 25, True),
        ("some float32 int8", 19, False),
        ("some float32 int8", 20, True),
    ],
)
def test_what_decides_too_little_certifies_nothing(target: str, decided: int, enough: bool) -> None:
    """What cannot be judged counts as undecided."""
    entry = {"target": target, "subject": "small", "tokens": 100, "unjudged": 1, "decided": decided}
    report = {"L0": [], "L1": [], "targets": [entry | {"wrong": 0, "beyond": 0}], "pairs": [], "controls": []}
    assert failures(report) == ([] if enough else [f"{target} on small: only {decided} positions are decided"])


def test_what_is_no_number_lies_beyond_the_bound() -> None:
    trace = trace_of([[10, 7, 0], [10, 9.99, 0]])
    got = np.full_like(trace.logits, np.nan)
    assert certify([against_oracle(trace, got, 0.0)], 0.1).beyond == 2


def levels(folder: Path, *sides: str, bug: str = "") -> tuple[int, dict[str, object], str]:
    """Run the command on the fixture backend: exit status, report, what was printed."""
    command = [sys.executable, "-c", "from isotoken.conformance.levels_command import main; raise SystemExit(main())"]
    options = ["--subject", "random", "--tokens", "1500", "--output", "levels.json"]
    path = os.pathsep.join([str(FIXTURE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ISOTOKEN_FIXTURE_BUG": bug}
    result = subprocess.run(
        [*command, *sides, *options], cwd=folder, env=env, capture_output=True, text=True, timeout=250, check=False
    )
    written = folder / "levels.json"
    report = json.loads(written.read_text()) if written.exists() else {}
    return result.returncode, report, result.stdout + result.stderr


def test_an_honest_pair_obtains_its_certificates(tmp_path: Path) -> None:
    status, report, said = levels(tmp_path, "--pair", "torch", "fixture")
    assert status == 0, said
    assert failures(report) == []
    assert [entry["pair"] for entry in report["pairs"]] == [["torch float32", "fixture float32"]]


@pytest.mark.parametrize(
    ("bug", "complaint"),
    [
        ("coarser than claimed", "fixture float32 on random models: 3 decided positions differ, 1500 lie beyond"),
        ("position ignored", "L0 fixture float32"),
    ],
)
def test_a_lie_obtains_none(bug: str, complaint: str, tmp_path: Path) -> None:
    status, report, said = levels(tmp_path, "--backend", "fixture", bug=bug)
    assert status == 1, said
    assert any(line.startswith(complaint) for line in failures(report)), failures(report)


def test_goldens_that_differ_are_a_failure() -> None:
    one = {"target": "some float32", "wrong": [], "goldens": False, "bitwise": False, "differing": {"alone": 1}}
    others = [one | {"target": f"some {other}"} for other in ("float32 cuda", "bfloat16", "float32 int8")]
    report = {"L0": [], "L1": [one, *others], "targets": [], "pairs": [], "controls": []}
    assert failures(report) == ["L2 some float32: goldens differ", "L2 some float32 cuda: goldens differ"]
    report["L1"] = [one | {"target": "some bfloat16", "bitwise": True}]
    assert failures(report) == ["L1 some bfloat16: requests differ by arrangement, batch_invariant is declared"]
    report = {"L0": [], "L1": [], "targets": [], "pairs": [], "controls": []}
    report["controls"] = [{"control": "noise", "subject": "small", "caught": False}]
    assert failures(report) == ["the negative control noise on small was not caught"]
