"""The null backend answers what it says it will, through the whole core, and is never taken for a model by mistake."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isotoken.api.bench.run import installed
from isotoken.api.llm import LLM
from isotoken.api.text import SamplingParams
from isotoken.backends.null.backend import NullBackend
from isotoken.backends.null.runner import NullRunner, PeakedLogits
from isotoken.backends.null.words import Words
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.fast_sampler import FastSampler
from isotoken.core.interfaces import RunnerConfig
from isotoken.core.sampling import HostSampler
from isotoken.core.types import CheckpointError, DecodeParams, Request, RequestOutput, Unsupported
from isotoken.models import BUILTIN, DEFAULT_MODEL
from isotoken.plugins.build import EngineConfig, build_engine
from isotoken.plugins.choice import AUTO_ORDER
from isotoken.plugins.manager import Plugins
from tokenizers import Tokenizer

from ..driver import greedy_rows

MODEL = BUILTIN[DEFAULT_MODEL]
PROMPTS = [[7, 8, 9], [50] * 40, list(range(20, 90)), [300]]


def words() -> Words:
    checkpoint = Checkpoint.open(MODEL)
    return Words.of(MODEL, checkpoint.spec.vocab_size, checkpoint.eos_token_ids)


def load(**settings: Any) -> NullRunner:
    return NullBackend().load(Checkpoint.open(MODEL), RunnerConfig(**settings))


def serve(settings: dict[str, Any], params: DecodeParams) -> list[list[int]]:
    """What a whole engine makes of PROMPTS, served together."""
    found: dict[str, list[int]] = {str(i): [] for i in range(len(PROMPTS))}

    def publish(outputs: list[RequestOutput]) -> None:
        for output in outputs:
            assert output.error is None
            found[output.request_id] += output.token_ids

    engine = build_engine(EngineConfig(model=str(MODEL), backend="null", **settings), Plugins.load(), publish).engine
    for i, prompt in enumerate(PROMPTS):
        engine.add(Request(id=str(i), token_ids=[*prompt], num_prompt_tokens=len(prompt), params=params))
    engine.run()
    engine.close()
    return list(found.values())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_num_batched_tokens": 16, "max_num_seqs": 2},
        {"block_size": 4, "num_blocks": 30, "max_model_len": 112},
        {"drafter": "ngram"},
        {"kv_cache": "contiguous"},
        {"sampler": "host"} if "host" in Plugins.load().samplers else {},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_are_those_foretold_whatever_the_core_does(settings: dict[str, Any], temperature: float) -> None:
    params = DecodeParams(max_tokens=30, temperature=temperature, seed=5)
    assert serve(settings, params) == [words().answer(prompt, 30) for prompt in PROMPTS]


def test_what_changes_logits_changes_tokens() -> None:
    """Bans and biases go through the rules: nothing is taken for granted but the peak."""
    (first, *_), *_ = serve({}, DecodeParams(max_tokens=1, temperature=0.0))
    banned = serve({}, DecodeParams(max_tokens=1, temperature=0.0, bad_words_ids=((first,),)))
    assert banned[0][0] != first
    only = serve({}, DecodeParams(max_tokens=3, allowed_token_ids=(77,), seed=1))
    assert only == [[77] * 3] * len(PROMPTS)


def test_the_sampler_equals_the_rules_on_the_same_logits() -> None:
    runner = load()
    assert runner.sampler is not None
    tokens = np.array([3, 4000, 17, 17], np.int32)
    logits = PeakedLogits(tokens, 4096)
    assert np.asarray(logits).argmax(-1).tolist() == tokens.tolist()
    positions = np.arange(4, dtype=np.int32)
    for temperature in (0.0, 0.7, 1.0, 20.0, 1e4):
        rows = greedy_rows(positions)
        rows.temperature[:] = temperature
        rows.seeds[:] = 11
        want = HostSampler().sample(np.asarray(logits), rows)
        assert runner.sampler.sample(logits, rows).token_ids.tolist() == want.token_ids.tolist(), temperature
    rows = greedy_rows(positions)
    rows.num_logprobs[:] = 3
    got, want = runner.sampler.sample(logits, rows), FastSampler().sample(np.asarray(logits), rows)
    assert got.top_ids is not None and want.top_ids is not None
    assert got.top_ids.tolist() == want.top_ids.tolist()


def test_answers_are_varied_text_without_special_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    answer = words().answer([5, 6], 2000)
    assert not special & set(answer)
    assert len(set(answer)) > 1000
    text = tokenizer.decode(answer)
    assert len(text) > 4000
    assert any(ord(character) > 127 for character in text)


def test_without_a_tokenizer_every_token_but_the_end_may_come(tmp_path: Path) -> None:
    assert set(Words.of(tmp_path, 8, {2}).answer([1], 400)) == set(range(8)) - {2}


def test_tokens_of_other_kinds_of_tokenizers(tmp_path: Path) -> None:
    unigram = {
        "model": {"type": "Unigram", "vocab": [["<s>", 0.0], ["a", -1.0], ["b", -2.0]]},
        "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(unigram))
    assert set(Words.of(tmp_path, 32, ()).answer([1], 100)) == {1, 2}


def test_no_weights_are_read(tmp_path: Path) -> None:
    read: list[str] = []
    checkpoint = Checkpoint.open(MODEL, on_read=lambda name, _: read.append(name))
    info = NullBackend().load(checkpoint, RunnerConfig(max_num_seqs=3, block_size=32)).info
    assert not read
    assert (info.dtype, info.device, info.weight_bytes, info.kv_cache_bytes) == ("float32", "cpu", 0, 0)
    assert info.num_blocks == 3 * info.max_model_len // 32


def test_a_step_takes_as_long_as_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are due at regular times; what comes late is not made up for."""
    clock, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        clock[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    runner = load(options={"step_ms": "10"})
    from ..driver import Query, make_batch

    batch = make_batch([Query(0, 0, 3)], [[5, 6, 7]], [[0]], 16)
    for others in (0.0, 0.002, 0.004, 0.0, 1.0):
        clock[0] += others
        runner.forward(batch)
    assert slept == [0.0, 0.008, 0.006, 0.01, 0.0]
    slept.clear()
    load().forward(batch)
    assert not slept


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"dtype": "bfloat16"}, Unsupported, "dtype='bfloat16'"),
        ({"device": "cuda"}, Unsupported, "device='cuda'"),
        ({"quantization": "int8"}, Unsupported, "quantization='int8'"),
        ({"kv_cache_dtype": "int8"}, Unsupported, "kv_cache_dtype='int8'"),
        ({"tensor_parallel_size": 2}, Unsupported, "tensor_parallel_size=2"),
        ({"options": {"speed": "high"}}, ValueError, "no option 'speed'.*step_ms"),
        ({"options": {"step_ms": "soon"}}, ValueError, "step_ms='soon'"),
        ({"options": {"step_ms": "-1"}}, ValueError, "step_ms='-1'"),
        ({"options": {"step_ms": "nan"}}, ValueError, "step_ms='nan'"),
        ({"max_model_len": 10**9}, ValueError, "max_model_len is 1000000000"),
        ({"max_num_seqs": 0}, ValueError, "max_num_seqs is 0"),
        ({"max_num_logits": 1}, ValueError, "max_num_logits is 1"),
        ({"num_blocks": -1}, ValueError, "num_blocks is -1"),
        ({"num_threads": -1}, ValueError, "^backend null: num_threads is -1"),
    ],
)
def test_what_cannot_be_had_is_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load(**settings)


def test_it_is_never_chosen_or_compared_by_itself() -> None:
    plugins = Plugins.load()
    assert "null" in plugins.backends
    assert "benchmarks only" in plugins.backends["null"].description
    assert not any("null" in order for order in AUTO_ORDER.values())
    assert "null" not in installed(plugins)


def test_a_damaged_tokenizer_is_the_users_to_mend(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL, tmp_path / "model")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        NullBackend().load(Checkpoint.open(folder), RunnerConfig())


def test_text_comes_out_of_the_public_interface() -> None:
    llm = LLM(str(MODEL), backend="null")
    (result,) = llm.generate(["The capital of France is"], SamplingParams(max_tokens=40))
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    want = words().answer(result.prompt_token_ids, 40)
    assert result.outputs[0].token_ids == want
    assert result.outputs[0].text == tokenizer.decode(want)
    llm.close()
