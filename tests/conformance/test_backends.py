"""The built-in backends conform, and what is published of them is what they do today."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from isotoken.conformance import SUITE_VERSION
from isotoken.conformance.levels import failures
from isotoken.conformance.spec import behaviours
from isotoken.conformance.subjects import TRAINED
from isotoken.conformance.targets import QUANTIZATIONS
from isotoken.core.checkpoint import Checkpoint
from isotoken.kernels.cpu import library
from isotoken.models import BUILTIN

from .make_matrix import BACKENDS, DATA, DOCS, LEVELS, NOTE, draw, files, report

STALE = "docs/conformance is stale: run `make matrix`"
TARGETS = {
    "reference": ["float64", "float32"],
    "native": [" ".join(filter(None, (d, q))) for d in ("float32", "bfloat16") for q in ("", *QUANTIZATIONS)],
    "torch": ["float32", "bfloat16", "float16"],
    "onnxruntime": ["float32", "float32 int8", "float32 int4"],
}
COMPARED = [
    "reference float32",
    "torch float32",
    "torch bfloat16",
    *(f"onnxruntime {x}" for x in TARGETS["onnxruntime"]),
]
PARTLY = "test_contract or test_aspects or test_numbers or test_greedy or test_preemption or test_speculation"


def published(backend: str) -> dict[str, Any]:
    """The committed report of a backend."""
    contents: dict[str, Any] = json.loads((DATA / f"{backend}.json").read_text())
    return contents


def lacks(backend: str) -> str:
    """What keeps a backend from running here, if anything."""
    if backend == "native":
        return library.why_unavailable()
    return "" if backend == "reference" or find_spec(backend) else "is not installed"


def precision(target: dict[str, Any]) -> str:
    """Dtype and quantisation of a target."""
    return " ".join(filter(None, (target["dtype"], target["quantization"])))


def test_the_matrix_its_picture_and_its_page_are_made_from_the_reports(tmp_path: Path) -> None:
    draw(tmp_path)
    for fresh, committed in zip(files(tmp_path).values(), files(DOCS).values(), strict=True):
        assert committed.read_text() == fresh.read_text(), f"{committed}: run tests/conformance/make_matrix.py page"
        assert NOTE.removeprefix("**").split("**")[0] in fresh.read_text() or fresh.suffix == ".svg"


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_reports_are_of_this_suite(backend: str) -> None:
    contents = published(backend)
    assert contents["suite_version"] == SUITE_VERSION, STALE
    assert [precision(target) for target in contents["targets"]] == TARGETS[backend]
    for target in contents["targets"]:
        assert list(target["behaviours"]) == list(behaviours()), STALE
        assert {found["outcome"] for found in target["behaviours"].values()} <= {"passed", "absent"}
        assert all(found["largest_difference"] is not None for found in target["invariance"].values())


def test_levels_are_of_this_suite_and_hold() -> None:
    levels = json.loads(LEVELS.read_text())
    assert levels["suite_version"] == SUITE_VERSION, STALE
    assert failures(levels) == []
    subjects = [entry["subject"] for entry in levels["subjects"]]
    assert all(entry["tokens"] >= 10_000 for entry in levels["subjects"])
    assert {(e["target"], e["subject"]) for e in levels["targets"]} == {(t, s) for t in COMPARED for s in subjects}
    assert len(levels["pairs"]) == len(subjects) * len(COMPARED) * (len(COMPARED) - 1) // 2
    assert all(entry["tokens"] >= 10_000 for entry in (*levels["targets"], *levels["pairs"]))
    assert len(levels["controls"]) == 3 * len(subjects)
    (trained,) = (entry for entry in levels["subjects"] if TRAINED in entry["models"])
    digest = Checkpoint.open(BUILTIN[TRAINED]).content_hash()[:16]
    assert trained["models"][TRAINED] == digest, f"{TRAINED} has other weights now; {STALE}"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("backend", "choice", "only"),
    [
        ("reference", ("--dtype", "float64"), ""),
        ("reference", ("--dtype", "float32"), PARTLY),
        ("native", ("--dtype", "float32"), ""),
        ("native", ("--dtype", "bfloat16"), ""),
        ("native", ("--dtype", "bfloat16", "--quantization", "w8a8"), ""),
        ("native", ("--dtype", "bfloat16", "--quantization", "w4a8"), PARTLY),
        ("native", ("--quantization", "int4"), PARTLY),
        ("native", ("--quantization", "int8"), PARTLY),
        ("torch", ("--dtype", "float32"), ""),
        ("torch", ("--dtype", "bfloat16"), ""),
        ("torch", ("--dtype", "float16"), PARTLY),
        ("onnxruntime", ("--dtype", "float32"), ""),
        ("onnxruntime", ("--quantization", "int8"), PARTLY),
        ("onnxruntime", ("--quantization", "int4"), PARTLY),
    ],
    ids=lambda value: "-".join(value[1::2]) if isinstance(value, tuple) else "partly" if value == PARTLY else value,
)
def test_conforms_as_published(backend: str, choice: tuple[str, ...], only: str, tmp_path: Path) -> None:
    """Every behaviour has the outcome that the committed report says, with the same reasons."""
    if missing := lacks(backend):
        pytest.skip(f"{backend}: {missing}")
    path = tmp_path / "out.json"
    assert report(backend, choice, path, *(("-k", only) if only else ())) == 0
    (found,) = json.loads(path.read_text())["targets"]
    (due,) = (target for target in published(backend)["targets"] if precision(target) == precision(found))
    ran = {n: b for n, b in found["behaviours"].items() if not only or b["tests"] == due["behaviours"][n]["tests"]}
    assert len(ran) >= (30 if only else len(behaviours()))
    assert ran == {number: due["behaviours"][number] for number in ran}, STALE
    assert found["absences"] == due["absences"], STALE
    for aspect, seen in found["invariance"].items():
        assert seen["declared"] == due["invariance"][aspect]["declared"], STALE
        if due["invariance"][aspect]["largest_difference"] == 0:
            assert seen["largest_difference"] == 0, f"published as bitwise invariant to {aspect}"
