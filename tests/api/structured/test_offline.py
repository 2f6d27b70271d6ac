"""Structured outputs offline: the same on every backend, with drafts or without, and errors before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.errors import NotOffered, ParameterError
from isotoken.api.llm import LLM
from isotoken.api.sampling_params import SamplingParams
from isotoken.plugins.manager import Plugins

pytest.importorskip("llguidance", reason="grammars need the extra: pip install 'isotoken[structured]'")

SCHEMA = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "list": {"type": "array", "items": {"enum": ["red", "größer", 3]}, "maxItems": 6},
    },
    "required": ["ok", "list"],
    "additionalProperties": False,
}
ASKED: list[tuple[dict[str, Any], Callable[[str], Any]]] = [
    ({"json": SCHEMA}, lambda text: list(json.loads(text)) == ["ok", "list"]),
    ({"json": SCHEMA, "disable_any_whitespace": True}, lambda text: list(json.loads(text)) == ["ok", "list"]),
    ({"regex": r"[a-z]{2,9}(-\d+)?;"}, lambda text: re.fullmatch(r"[a-z]{2,9}(-\d+)?;", text)),
    ({"choice": ["zero one two", "three", "четыре 🙂"]}, lambda text: text in ("zero one two", "three", "четыре 🙂")),
    ({"grammar": 'start: e\ne: "(" e e? ")" | "x"'}, lambda text: text.count("(") == text.count(")")),
]
PROMPTS = ["The quick brown", "fox " * 9, "zero one two three four "]


def run(model_dir: Path, **settings: Any) -> list[tuple[str, list[int], str | None]]:
    params = [
        SamplingParams(
            structured_outputs=asked, temperature=index % 2 * 1.1, seed=index, max_tokens=200, top_p=0.95, logprobs=1
        )
        for index in range(2)
        for asked, _ in ASKED
    ]
    prompts = [PROMPTS[index % len(PROMPTS)] for index in range(len(params))]
    with LLM(model_dir, dtype="float32", max_model_len=512, **settings) as llm:
        results = llm.generate(prompts, params)
    return [(each.text, each.token_ids, each.finish_reason) for result in results for each in result.outputs]


@pytest.fixture(scope="module")
def gold(model_dir: Path) -> list[tuple[str, list[int], str | None]]:
    return run(model_dir, backend="reference", max_num_seqs=1, sampler="host")


def test_answers_are_of_their_form(gold: list[tuple[str, list[int], str | None]]) -> None:
    for (text, _, reason), (_, good) in zip(gold, ASKED * 2, strict=True):
        if reason == "stop":
            assert good(text), text
    assert [reason for _, _, reason in gold].count("stop") >= len(gold) - 2


@pytest.mark.parametrize("backend", ["reference", "native", "torch", "onnxruntime"])
@pytest.mark.parametrize(
    "more", [{}, {"drafter": "ngram", "fixed_drafts": True, "max_num_seqs": 3}], ids=["plain", "drafts"]
)
def test_every_backend_gives_the_same(
    gold: list[tuple[str, list[int], str | None]], model_dir: Path, backend: str, more: dict[str, Any]
) -> None:
    try:
        backend_is = Plugins.load().backends.get_factory(backend)()
    except Exception as error:  # its engine is not installed here
        pytest.skip(f"{backend}: {error}")
    assert "cpu" in backend_is.capabilities.devices
    assert run(model_dir, backend=backend, device="cpu", **more) == gold


def test_what_cannot_be_is_told_before_anything_runs(model_dir: Path) -> None:
    with LLM(model_dir, backend="reference", max_model_len=64) as llm:
        for outputs in ({"regex": "("}, {"json": {"type": "poem"}}, {"json": {"$ref": "https://example.com/x"}}):
            with pytest.raises(ParameterError) as refusal:
                llm.generate("a", SamplingParams(structured_outputs=outputs))
            assert refusal.value.field == "structured_outputs"
        assert llm.generate("a", SamplingParams(structured_outputs={"choice": ["b"]}))[0].outputs[0].text == "b"
    with LLM(model_dir, backend="reference", max_model_len=64, grammars="none") as llm, pytest.raises(NotOffered):
        llm.generate("a", SamplingParams(structured_outputs={"regex": "a"}))
