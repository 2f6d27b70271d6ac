"""`isotoken diff`: where two sides part, and whether that is rounding or a mistake."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from isotoken.conformance.diff import Answer, Comparison, Question, parse
from isotoken.conformance.divergence import Side, first_difference, judge_difference
from isotoken.conformance.models import MODELS, write_checkpoint
from isotoken.conformance.quantized import RoundedCheckpoint, quantized
from isotoken.conformance.targets import Target
from isotoken.core.types import DecodeParams
from isotoken.plugins.manager import Plugins
from safetensors.numpy import load_file, save_file

from .suite import FIXTURE

GREEDY = DecodeParams(temperature=0.0, max_tokens=40, ignore_eos=True)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load()


def questions(count: int) -> list[Question]:
    """Random prompts, greedy and drawn."""
    dice = random.Random(5)
    prompts = [tuple(dice.randrange(3, 131) for _ in range(dice.randrange(1, 30))) for _ in range(count)]
    drawn = replace(GREEDY, temperature=0.9, top_k=50, top_p=0.95, seed=3)
    return [Question(prompt, params) for prompt in prompts for params in (GREEDY, drawn)]


def answers(plugins: Plugins, folder: Path, one: str, other: str, count: int = 8) -> list[Answer]:
    """Compare two sides on the main model."""
    write_checkpoint(MODELS["llama"], folder)
    sides = (parse(one, plugins), parse(other, plugins))
    return Comparison(folder, sides, parse("reference:float64", plugins), plugins).ask(questions(count))


def test_equal_sides_are_equal(plugins: Plugins, tmp_path: Path) -> None:
    for answer in answers(plugins, tmp_path, "torch", "onnxruntime"):
        assert answer.verdict == "equal"
        assert len(answer.tokens[0]) == 40


def test_reduced_precision_parts_at_near_ties_only(plugins: Plugins, tmp_path: Path) -> None:
    found = answers(plugins, tmp_path, "torch", "torch:bfloat16", 12)
    apart = [answer.difference for answer in found if answer.difference]
    assert len(apart) > 5, "this does not show whether differences are found"
    for answer in found:
        if not answer.difference:
            continue
        assert answer.verdict == "near-tie", answer.difference.reason
        exact, coarse = answer.difference.views
        index = answer.difference.index
        assert answer.tokens[0][:index] == answer.tokens[1][:index]
        assert (exact.token, coarse.token) == (answer.tokens[0][index], answer.tokens[1][index])
        assert exact.missed_by == 0
        assert 0 <= coarse.missed_by <= coarse.explained
        assert coarse.missed_by > 0 or answer.question.params.temperature > 0, "filters may be what keeps a token out"
        assert exact.error < 1e-4 < coarse.error <= coarse.bound
        assert answer.difference.position == len(answer.question.prompt) + index
        assert [c.token for c in exact.top] == [c.token for c in answer.difference.base_top]


def test_other_weights_differ_for_real_and_are_right_by_their_own(plugins: Plugins, tmp_path: Path) -> None:
    found = answers(plugins, tmp_path, "torch", "onnxruntime:int4")
    reasons = [answer.difference.reason for answer in found if answer.verdict == "real" and answer.difference]
    assert len(reasons) > 8
    assert all("the weights differ" in reason for reason in reasons)
    same = answers(plugins, tmp_path, "onnxruntime:int4", "onnxruntime:int4", 2)
    assert {answer.verdict for answer in same} == {"equal"}


def test_a_model_that_changes_meanwhile_is_no_difference(plugins: Plugins, tmp_path: Path) -> None:
    """A side's tokens would be held against the logits of other weights, and called wrong."""
    write_checkpoint(MODELS["llama"], tmp_path)

    def train_on(line: str) -> None:
        if line.startswith("onnxruntime"):
            path = tmp_path / "model.safetensors"
            tensors = {name: tensor[::-1].copy() for name, tensor in load_file(path).items()}
            save_file(tensors, path)

    sides = (parse("torch", plugins), parse("onnxruntime", plugins))
    comparison = Comparison(tmp_path, sides, parse("reference:float64", plugins), plugins, tell=train_on)
    with pytest.raises(ValueError, match="the model was changed while it was compared; ask again"):
        comparison.ask(questions(1))


@pytest.mark.parametrize("model", ["llama", "qwen3", "moe"])
def test_a_rounded_checkpoint_holds_the_oracles_weights(model: str, tmp_path: Path) -> None:
    from isotoken.conformance.models import weights

    folder = write_checkpoint(MODELS[model], tmp_path)
    checkpoint, due = RoundedCheckpoint(folder, "int4"), quantized(weights(MODELS[model]), "int4")
    assert set(checkpoint.names()) == set(due)
    assert not checkpoint.spec.tied_embeddings
    for name, weight in due.items():
        assert np.array_equal(checkpoint.tensor(name).astype(np.float64), weight), name


BASE = Target(backend="base", dtype="float64", device="cpu")
SOUND = Target(backend="sound", dtype="float32", device="cpu")
ROUGH = Target(backend="rough", dtype="bfloat16", device="cpu")


def judged(tokens: tuple[int, int], params: DecodeParams = GREEDY, shift: float = 0.0) -> tuple[str, str]:
    """Verdict and reason where both saw [10, 9.9, 5, 0] and said these tokens; the rough one's logits are shifted."""
    exact = np.array([10.0, 9.9, 5.0, 0.0])
    shifted = exact.copy()
    shifted[3] += shift
    sides = (
        Side(SOUND, [2, tokens[0]], exact, exact),
        Side(ROUGH, [2, tokens[1]], shifted, exact),
    )
    found = judge_difference([3], params, sides, BASE, frozenset(), 3)
    assert (found.index, found.position) == (1, 2)
    return found.verdict, found.reason


def test_verdicts() -> None:
    assert judged((0, 1))[0] == "near-tie"
    assert judged((1, 0)) == ("real", "sound float32: 1 is wrong, 0 is due; it misses by 0.1, rounding explains 0.0004")
    assert judged((0, 2))[0] == "real"
    assert judged((0, 1), shift=2.0) == ("real", "rough bfloat16: its logits are off by 2, the bound is 0.5")
    drawn = DecodeParams(temperature=0.01, top_k=1, seed=4)
    assert judged((0, 1), drawn)[0] == "near-tie", "top-k could have kept the other"
    assert judged((0, 3), drawn)[1].startswith("rough bfloat16: 3 is wrong, 0 is due; it is filtered out")


def test_the_first_difference() -> None:
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2, 3], [1, 4, 3]) == 1
    assert first_difference([1, 2], [1, 2, 5]) == 2


def command(folder: Path, *args: str, bug: str = "") -> subprocess.CompletedProcess[str]:
    """Run `isotoken diff` on the built-in model, with the fixture plugin installed."""
    path = os.pathsep.join([str(FIXTURE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ISOTOKEN_FIXTURE_BUG": bug}
    run = [
        sys.executable,
        "-c",
        "from isotoken.api.cli import main; raise SystemExit(main())",
        "diff",
        "isotoken-small",
    ]
    return subprocess.run([*run, *args], cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False)


def test_a_mistake_is_named(tmp_path: Path) -> None:
    args = ("--backend", "torch", "--backend", "fixture", "Once upon a time", "--max-tokens", "24")
    wrong = command(tmp_path, *args, "--json", bug="context off by one")
    assert wrong.returncode == 1, wrong.stderr
    greedy, drawn = map(json.loads, wrong.stdout.splitlines())
    assert (greedy["mode"], drawn["mode"]) == ("greedy", "seeded")
    assert greedy["verdict"] == "real"
    assert greedy["difference"]["reason"].startswith("fixture float32: ")
    assert greedy["difference"]["views"][0]["missed_by"] == 0


def test_what_is_shown(tmp_path: Path) -> None:
    args = ("--backend", "torch", "--backend", "torch:bfloat16", "Once upon a time", "The", "--seeds", "0")
    shown = command(tmp_path, *args, "--max-tokens", "48", "--ignore-eos", "--top", "3")
    assert shown.returncode == 0, shown.stderr
    last = shown.stdout.splitlines()[-1]
    assert last.endswith("0 differ for real")
    if "near-tie  greedy" in shown.stdout:
        for words in ("first differing token: output", "reference float64 (base)", "rounding explains", "(bound"):
            assert words in shown.stdout
    assert "torch bfloat16 answers" in shown.stderr


def test_usage(tmp_path: Path) -> None:
    alone = command(tmp_path, "--backend", "torch", "hi")
    assert (alone.returncode, "two sides are compared" in alone.stderr) == (2, True)


def test_a_base_that_does_not_fit_is_refused(plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        available = 1000

    monkeypatch.setattr("isotoken.conformance.diff.psutil", SimpleNamespace(virtual_memory=Small))
    with pytest.raises(ValueError, match="would need 0 GB to judge them, 0 GB are free: choose another base"):
        answers(plugins, tmp_path, "torch", "onnxruntime:int4", 2)
