"""What the reference backend promises besides right answers: bitwise invariance, honest info, clear refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from isotoken.backends.reference.backend import ReferenceBackend
from isotoken.backends.reference.runner import ReferenceRunner
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
from isotoken.core.types import Unsupported

from ..driver import Query, make_batch, run_all, scattered_tables
from ..families import Case

CaseOf = Callable[[str], Case]
SETTINGS: dict[str, Any] = {"max_model_len": 64, "max_num_seqs": 16, "max_num_batched_tokens": 600, "num_blocks": 64}
INVARIANT_FAMILIES = ["llama-gelu-mha", "qwen3", "gemma2", "gemma3", "phi3-longrope-long", "olmo2", "qwen3-moe"]


def load(case: Case, **settings: Any) -> ReferenceRunner:
    return ReferenceBackend().load(Checkpoint.open(case.folder), RunnerConfig(**{**SETTINGS, **settings}))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", INVARIANT_FAMILIES)
def test_logits_are_bitwise_the_same_however_they_are_computed(family_case: CaseOf, family: str, dtype: str) -> None:
    case = family_case(family)
    runner = load(case, dtype=dtype)
    alone = [run_all(runner, [sequence], max_chunk=64)[0] for sequence in case.sequences]
    ways = {
        "whole, side by side": run_all(runner, case.sequences, max_chunk=600),
        "in chunks": run_all(runner, case.sequences, max_chunk=7, seed=1),
        "one by one": run_all(runner, case.sequences, max_chunk=1, seed=2),
        "in reverse order": run_all(runner, case.sequences[::-1], max_chunk=30, seed=3)[::-1],
        "in blocks of 3": run_all(load(case, dtype=dtype, block_size=3, num_blocks=200), case.sequences, max_chunk=20),
    }
    for way, answers in ways.items():
        for sequence, answer in zip(alone, answers, strict=True):
            assert answer.dtype == dtype
            assert np.array_equal(answer.view(np.uint8), sequence.view(np.uint8)), way


@pytest.mark.parametrize("family", ["llama-biases", "gemma2", "qwen3-moe"])
def test_sums_left_to_blas_differ_by_rounding_only(family_case: CaseOf, family: str) -> None:
    case = family_case(family)
    exact = run_all(load(case, dtype="float64"), case.sequences, max_chunk=600)
    for sums, dtype, bound in (("blas", "float64", 1e-12), ("blas", "float32", 1e-4)):
        runner = load(case, dtype=dtype, options={"sums": sums})
        for got, want in zip(run_all(runner, case.sequences, max_chunk=600), exact, strict=True):
            assert np.abs(got - want).max() < bound * np.abs(want).max()


def test_rotations_are_bitwise_the_same_far_out(family_case: CaseOf) -> None:
    """cos and sin of large angles go through other code than small ones; still each angle stands for itself."""
    runner = load(family_case("llama3"), dtype="float64")
    positions = np.random.default_rng(0).permutation(np.arange(0, 200_000, 37))
    (together,) = runner._rotations(positions).values()
    for i in range(0, len(positions), 61):
        (alone,) = runner._rotations(positions[i : i + 1]).values()
        assert np.array_equal(alone, [table[i : i + 1] for table in together])


def test_float64_agrees_with_transformers_to_float32_accuracy(family_case: CaseOf) -> None:
    case = family_case("llama3")
    answers = run_all(load(case, dtype="float64"), case.sequences, max_chunk=16)
    for answer, expected in zip(answers, case.logits, strict=True):
        np.testing.assert_allclose(answer, expected, atol=2e-5 * abs(expected).max(), rtol=0)


def test_what_lies_in_a_block_from_before_is_never_seen(family_case: CaseOf) -> None:
    """NaN in every block that has not been written, and behind what has, leaves no trace."""
    case = family_case("mistral")
    runner = load(case)
    clean = run_all(runner, case.sequences, max_chunk=9)
    runner._keys[:] = runner._values[:] = np.nan
    dirty = run_all(runner, case.sequences, max_chunk=9)
    assert all(np.array_equal(a, b) for a, b in zip(clean, dirty, strict=True))


def test_a_forward_may_ask_for_no_logits_and_may_be_repeated(family_case: CaseOf) -> None:
    case = family_case("llama")
    runner, sequence = load(case), case.sequences[6]
    tables = scattered_tables([sequence], runner, seed=5)
    filling = make_batch([Query(0, 0, 20)], [sequence], tables, 16, logits=False)
    assert runner.forward(filling).shape == (0, 128)
    rest = make_batch([Query(0, 20, len(sequence))], [sequence], tables, 16)
    first = runner.forward(rest)
    runner.forward(filling)
    assert np.array_equal(first, runner.forward(rest))


def test_block_copies_are_carried_out_first(family_case: CaseOf) -> None:
    """A second sequence starts from a copy of the first one's cache, and goes its own way."""
    case = family_case("qwen2")
    runner = load(case)
    first = case.sequences[7]
    second = [*first[:25], *case.sequences[8][25:40]]
    tables = [[3, 9, 4], [8, 1, 2]]
    expected = run_all(runner, [second], max_chunk=64)[0][25:]
    runner._keys[:] = runner._values[:] = np.nan
    runner.forward(make_batch([Query(0, 0, len(first))], [first, second], tables, 16))
    copies = [(3, 8, 16), (9, 1, 9)]
    batch = make_batch([Query(1, 25, len(second))], [first, second], tables, 16, copies=copies)
    assert np.array_equal(runner.forward(batch), expected)
    assert np.array_equal(runner.forward(batch), expected)
    assert np.isnan(runner._keys[:, 1, 9 + len(second) - 25 :]).all()


def test_info_says_what_was_granted(family_case: CaseOf) -> None:
    case = family_case("llama-biases")
    runner = load(case, num_blocks=0, block_size=24, max_num_seqs=3, dtype="float64")
    info = runner.info
    assert (info.dtype, info.device, info.vocab_size, info.max_model_len) == ("float64", "cpu", 128, 64)
    assert info.eos_token_ids == {2}
    assert info.num_blocks == 3 * 3
    assert info.max_num_logits == 256
    assert info.weight_bytes == 2 * Checkpoint.open(case.folder).num_bytes
    assert info.kv_cache_bytes == runner._keys.nbytes + runner._values.nbytes
    assert load(case).info.dtype == "float32"
    runner.close()
    runner.close()


def test_the_default_cache_is_bounded(family_case: CaseOf) -> None:
    info = load(family_case("llama"), num_blocks=0, max_num_seqs=10**6).info
    assert 0.9 * 2**30 < info.kv_cache_bytes <= 2**30


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"dtype": "bfloat16"}, Unsupported, "bfloat16"),
        ({"device": "cuda"}, Unsupported, "cuda"),
        ({"quantization": "int8"}, Unsupported, "int8"),
        ({"kv_cache_dtype": "fp8"}, Unsupported, "fp8"),
        ({"tensor_parallel_size": 2}, Unsupported, "tensor_parallel_size 2"),
        ({"options": {"speed": "high"}}, ValueError, "speed"),
        ({"options": {"sums": "quick"}}, ValueError, "sums='quick'.*ordered|blas"),
        ({"max_model_len": 65}, ValueError, "max_model_len is 65"),
        ({"max_model_len": -1}, ValueError, "max_model_len is -1"),
        ({"block_size": 0}, ValueError, "block_size is 0"),
        ({"max_num_seqs": 0}, ValueError, "max_num_seqs is 0"),
        ({"num_blocks": -1}, ValueError, "num_blocks is -1"),
        ({"max_num_logits": 2}, ValueError, "max_num_logits is 2"),
    ],
)
def test_what_cannot_be_had_is_refused_before_weights_are_read(
    family_case: CaseOf, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    read: list[str] = []
    checkpoint = Checkpoint.open(family_case("llama").folder, on_read=lambda name, _: read.append(name))
    with pytest.raises(error, match=words):
        ReferenceBackend().load(checkpoint, RunnerConfig(**{**SETTINGS, **settings}))
    assert not read


def test_the_plugin_is_light() -> None:
    """Importing the plugin pulls in neither the backend nor numpy code of it."""
    program = (
        "import sys, isotoken.backends.reference.plugin as p; before = set(sys.modules); "
        "assert not any(m.startswith('isotoken.backends.reference.') and not m.endswith('plugin') for m in before); "
        "print(type(p.load_backend()).__name__)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "ReferenceBackend"
