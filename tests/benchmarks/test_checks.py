"""Tokens are judged before speed counts: right ones pass, wrong ones do not, near-ties are told apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from isotoken.api.bench.checks import BOUND, MEAN_PART, Check, Judge, Verdict
from isotoken.api.bench.engines import Isotoken, Run
from isotoken.api.bench.truth import Truth, Truths
from isotoken.api.bench.workloads import Task, Workload, make_workload, small
from isotoken.plugins.manager import Plugins
from transformers import AutoModelForCausalLM

W2 = small(make_workload("W2"), 4)


@pytest.fixture(scope="module")
def truth(tiny: Path, plugins: Plugins) -> Iterator[Truth]:
    truth = Truth(tiny, plugins, 256)
    yield truth
    truth.close()


def engine(tiny: Path, plugins: Plugins, backend: str, dtype: str = "float32", **settings: Any) -> Isotoken:
    return Isotoken(tiny, dtype, backend, settings={"max_model_len": 256, **settings}, plugins=plugins)


def test_the_truth_is_what_transformers_computes(tiny: Path, truth: Truth) -> None:
    prompt, tokens = W2.tasks[0].prompt, W2.tasks[1].prompt[:9]
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    with torch.inference_mode():
        want = model(torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :].numpy()
    got = truth.logits(prompt, tokens)
    assert got.shape == (9, 32000)
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "equal"), ("bfloat16", "margins")])
def test_a_right_engine_passes(tiny: Path, plugins: Plugins, truth: Truth, dtype: str, kind: str) -> None:
    subject = engine(tiny, plugins, "torch", dtype)
    run = subject.run(W2)
    check = Judge(truth).check(subject, W2, run)
    subject.close()
    assert (check.ok, check.kind, check.verdict.wrong) == (True, kind, 0)
    assert check.verdict.positions == sum(map(len, run.tokens))  # few enough for all to be judged
    if dtype == "float32":
        assert check.verdict.shortfall == 0
        assert check.text == "float32's tokens (128 judged)"


@pytest.mark.parametrize(("backend", "dtype"), [("wrong", "float32"), ("late", "float32")])
def test_a_wrong_engine_does_not(tiny: Path, plugins: Plugins, truth: Truth, backend: str, dtype: str) -> None:
    subject = engine(tiny, plugins, backend, dtype)
    check = Judge(truth).check(subject, W2, subject.run(W2))
    subject.close()
    assert not check.ok
    assert "WRONG" in check.text


def test_one_wrong_token_is_found(tiny: Path, plugins: Plugins, truth: Truth) -> None:
    subject = engine(tiny, plugins, "torch")
    run = subject.run(W2)
    run.tokens[3][7] = (run.tokens[3][7] + 1) % 32000
    check = Judge(truth).check(subject, W2, run)
    subject.close()
    assert not check.ok
    assert check.verdict.wrong >= 1


def test_a_quantised_engine_must_agree_with_itself_alone(tiny: Path, plugins: Plugins, truth: Truth) -> None:
    found = {}
    for backend in ("good-int8", "crowded-int8"):
        subject = engine(tiny, plugins, backend, quantization="int8")
        found[backend] = Judge(truth).check(subject, W2, subject.run(W2))
        subject.close()
    good, crowded = found["good-int8"], found["crowded-int8"]
    assert (good.kind, good.ok, crowded.kind, crowded.ok) == ("alone", True, "alone", False)
    assert good.verdict.shortfall > 0  # the error is stated, and judged only where it is out of all proportion
    assert f"{good.verdict.shortfall:.3f} logits below" in good.text
    assert crowded.unlike_alone > 0
    assert "differ from themselves alone" in crowded.text


def test_a_quantised_engine_may_not_say_anything(tiny: Path, plugins: Plugins, truth: Truth) -> None:
    """It agrees with itself alone, and is wrong all the same."""
    subject = engine(tiny, plugins, "wrong-int8", quantization="int8")
    check = Judge(truth).check(subject, W2, subject.run(W2))
    subject.close()
    assert (check.kind, check.ok, check.unlike_alone) == ("alone", False, 0)
    assert "WRONG" in check.text and "which no quantisation explains" in check.text


@pytest.fixture(scope="module")
def truths(tiny: Path, plugins: Plugins) -> Iterator[Truths]:
    truths = Truths(lambda quantization: Truth(tiny, plugins, 256, quantization))
    yield truths
    truths.close()


@pytest.mark.parametrize(
    ("backend", "quantization", "ok"),
    [
        ("rounded-int8", "int8", True),
        ("coarse-int8", "int8", False),
        ("wrong-int8", "int8", False),
        ("crowded-int8", "int8", False),
        ("onnxruntime", "int8", True),
        ("onnxruntime", "int4", True),
    ],
)
def test_a_quantised_engine_is_held_to_what_its_weights_are(
    backend: str, quantization: str, ok: bool, tiny: Path, plugins: Plugins, truth: Truth, truths: Truths
) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    subject = engine(tiny, plugins, backend, quantization=quantization)
    check = Judge(truth, truths).check(subject, W2, subject.run(W2))
    subject.close()
    print(check)
    assert (check.kind, check.ok) == ("rounded", ok), check.text
    assert ("WRONG" in check.text or "differ from themselves" in check.text) is not ok
    assert "unlike float32's" in check.text, "what quantising costs is said as well"


def test_kinds_that_store_the_same_weights_share_a_truth() -> None:
    made: list[str] = []

    class Known:
        def close(self) -> None:
            made.append("closed")

    def make(quantization: str) -> Any:
        made.append(quantization)
        return Known()

    truths = Truths(make)
    assert truths("int4") is truths("w4a8") is truths("int4")
    assert truths("int8") is not truths("w8a8")
    assert truths("fp8") is None and truths("a plugin's") is None
    truths.close()
    assert made == ["int4", "int8", "w8a8", "closed", "closed", "closed"]


@pytest.mark.parametrize("share", [0.0, 0.002, 0.003])
def test_many_small_errors_are_one_large(share: float) -> None:
    """Every token a little below the best: near-ties one and all, but rounding does not take always the worse."""
    bound = BOUND["bfloat16"]
    verdict = Verdict(100, 0, 0, 100, 0, 90, 10 * share, share)
    check = Check("margins", verdict.ok and share <= MEAN_PART * bound, "", verdict, bound=bound)
    assert check.ok is (share < 0.0025)
    assert ("which rounding does not explain" in check.text) is not check.ok


class Fixed:
    """An oracle of three tokens, of which the second is below the best by what is given."""

    def __init__(self, below: float) -> None:
        self.below = below

    def logits(self, prompt: list[int], tokens: list[int]) -> Any:
        return np.array([[10.0, 10.0 - self.below, -5.0]] * len(tokens), np.float32)


@pytest.mark.parametrize(
    ("dtype", "below", "ok", "near_ties"),
    [("float32", 1e-4, True, 1), ("float32", 1e-2, False, 0), ("bfloat16", 0.9, True, 1), ("bfloat16", 1.1, False, 0)],
)
def test_a_near_tie_is_what_rounding_can_turn(dtype: str, below: float, ok: bool, near_ties: int) -> None:
    workload, run = Workload("W1", [Task([1, 2], 1)], 1), Run(1.0, [[1]], [[0.5]])
    verdict = Judge(Fixed(below)).judge(workload, run, dtype)
    assert (verdict.ok, verdict.near_ties, verdict.differing) == (ok, near_ties, near_ties)
    low = Judge(Fixed(below)).judge(workload, Run(1.0, [[2]], [[0.5]]), dtype)
    assert not low.ok  # a token far below is wrong even beside a near-tie
