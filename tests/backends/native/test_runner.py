"""What the native runner promises besides right answers: limits, copies, closing, honest info, bounds of each form."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from isotoken.backends.native.backend import NativeBackend
from isotoken.backends.native.runner import NativeRunner
from isotoken.conformance.rig import Rig
from isotoken.core.batch import Batch
from isotoken.core.checkpoint import Checkpoint

from .helpers import MAX_MODEL_LEN, TOKENS, load, load_on_twins, settings
from .twin_executor import Twins

Models = Callable[[str], Checkpoint]
BOUNDS: list[tuple[dict[str, Any], float]] = [  # of the largest logit
    ({"dtype": "float32"}, 2e-6),
    ({"dtype": "float32", "kv_cache_dtype": "bfloat16"}, 0.02),
    ({"dtype": "float32", "kv_cache_dtype": "int8"}, 0.03),
    ({"dtype": "bfloat16"}, 0.03),
    ({"dtype": "bfloat16", "kv_cache_dtype": "int8"}, 0.04),
]


def name_of(value: Any) -> str:
    return "-".join(value.values()) if isinstance(value, dict) else ""


def rows_of(runner: NativeRunner, tokens: list[int]) -> Any:
    rig = Rig(runner)
    return rig.step([(rig.strand(tokens), len(tokens), len(tokens))])[0]


@pytest.mark.parametrize("loader", [load_on_twins, load])
@pytest.mark.parametrize(("form", "bound"), BOUNDS, ids=name_of)
def test_every_form_is_near_float32(
    models: Models, loader: Callable[..., NativeRunner], form: dict[str, Any], bound: float
) -> None:
    exact = rows_of(load_on_twins(models("gemma2")), TOKENS[:60])
    runner = loader(models("gemma2"), **form)
    assert abs(rows_of(runner, TOKENS[:60]) - exact).max() <= bound * abs(exact).max()
    runner.close()


@pytest.mark.parametrize("quantization", ["int8", "int4", "w8a8", "w4a8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["qwen3", "moe"])
def test_quantised_kernels_are_near_their_twins(models: Models, model: str, dtype: str, quantization: str) -> None:
    """The same weights and roundings: only near-ties of a rounded activation may fall otherwise."""
    form = {"dtype": dtype, "quantization": quantization}
    runner = load(models(model), **form)
    due = rows_of(load_on_twins(models(model), **form), TOKENS[:60])
    found = rows_of(runner, TOKENS[:60])
    bound = 2e-5 if dtype == "float32" and quantization in ("int8", "int4") else 0.05
    assert np.square(found - due).mean() ** 0.5 <= bound * np.square(due).mean() ** 0.5
    runner.close()


def test_more_logits_than_sixty_four(models: Models) -> None:
    runner = load_on_twins(models("llama"), max_num_logits=200)
    rig = Rig(runner)
    strands = [rig.strand(TOKENS[:70], row_id=i) for i in range(3)]
    logits = rig.step([(strand, 70, 65) for strand in strands])
    assert runner.info.max_num_logits == 200
    for rows in logits:
        assert np.array_equal(rows, logits[0])
    runner.close()


def test_no_tokens_and_no_logits(models: Models) -> None:
    runner = load_on_twins(models("moe"))
    rig = Rig(runner)
    batch = rig.batch([(rig.strand(TOKENS[:5]), 5, 0)])
    assert runner.forward(batch).shape == (0, runner.info.vocab_size)
    empty = {name: getattr(batch, name)[:0] for name in ("input_ids", "positions", "slot_mapping", "seq_lens")}
    nothing = replace(batch, **empty, query_start_loc=np.zeros(1, np.int32), block_table=batch.block_table[:0])
    assert runner.forward(nothing).shape == (0, runner.info.vocab_size)
    runner.close()


@pytest.mark.parametrize("form", [form for form, _ in BOUNDS], ids=name_of)
@pytest.mark.parametrize("copied", [1, 16, 21, 32])
def test_a_copied_block_serves_as_a_computed_one(models: Models, copied: int, form: dict[str, Any]) -> None:
    runner = load_on_twins(models("qwen3"), **form, block_size=32)
    due = rows_of(runner, TOKENS[:40])
    rig = Rig(runner)
    other = rig.strand(TOKENS[:40], blocks=[40, 41])
    other.computed = copied
    rows = rig.step([(other, 40 - copied, 40 - copied)], copies=[(0, 40, copied), (1, 1, 3)])[0]
    assert np.allclose(rows, due[copied:], rtol=0, atol=1e-6 * abs(due).max())
    runner.close()


def test_arrays_of_any_kind_are_read_right(models: Models) -> None:
    """A batch put together by hand may hold int64, or every other number of an array."""
    runner = load_on_twins(models("llama"))
    rig = Rig(runner)
    batch = rig.batch([(rig.strand(TOKENS[:20]), 20, 20)])
    due = runner.forward(batch).copy()
    wide = np.repeat(batch.input_ids, 2)[::2]
    odd = replace(batch, input_ids=wide, logits_indices=batch.logits_indices.astype(np.int64))
    assert np.array_equal(runner.forward(odd), due)
    runner.close()


def one_token(batch: Batch) -> dict[str, Any]:
    """The arrays of a batch's first token alone."""
    firsts = {name: getattr(batch, name)[:1] for name in ("input_ids", "positions", "slot_mapping", "seq_lens")}
    return {**firsts, "query_start_loc": np.array([0, 1], np.int32)}


def test_blocks_behind_a_request_may_be_anything(models: Models) -> None:
    runner = load_on_twins(models("llama"))
    rig = Rig(runner)
    batch = rig.batch([(rig.strand(TOKENS[:20]), 20, 20)])
    due = runner.forward(batch).copy()
    table = np.full((1, 9), -7, np.int32)
    table[:, :2] = batch.block_table[:, :2]
    assert np.array_equal(runner.forward(replace(batch, block_table=table)), due)
    runner.close()


def test_what_is_beyond_the_memory_is_refused(models: Models) -> None:
    runner = load_on_twins(models("llama"), max_num_batched_tokens=40, max_num_logits=30)
    rig = Rig(runner)
    batch = rig.batch([(rig.strand(TOKENS[:40]), 40, 10)])

    def refused(says: str, **changes: Any) -> None:
        with pytest.raises(ValueError, match=says):
            runner.forward(replace(batch, **changes))

    refused("10 logits rows|31 logits rows", logits_indices=np.arange(31, dtype=np.int32))
    refused("a step of 41 tokens", input_ids=np.zeros(41, np.int32))
    for wrong in (-1, runner.info.vocab_size):
        ids = batch.input_ids.copy()
        ids[7] = wrong
        refused("not within the vocabulary of 131", input_ids=ids)
    for name, wrong, says in (
        ("positions", 40, "not within the longest request of 40"),
        ("slot_mapping", 60 * 16, "a slot is not within the 60 blocks of 16"),
        ("logits_indices", 40, "not of one of the 40 tokens"),
        ("query_start_loc", 41, "does not part the tokens"),
        ("block_table", 60, "a block is not one of the 60"),
        ("seq_lens", 39, "not within the longest request|shorter than its part"),
        ("seq_lens", 65, "a request of 65 tokens has . blocks"),
    ):
        for value in {wrong, -1} if name != "seq_lens" else {wrong}:
            array = getattr(batch, name).copy()
            array.reshape(-1)[0 if name == "block_table" else -1] = value
            refused(says, **{name: array})
    refused("not equally long", slot_mapping=batch.slot_mapping[:-1])
    refused("not equally long", block_table=np.repeat(batch.block_table, 2, axis=0))
    refused("and a row for each token", **one_token(batch), logits_indices=np.zeros(2, np.int32))
    refused(f"position {MAX_MODEL_LEN} of at most", seq_lens=np.array([MAX_MODEL_LEN + 1], np.int32))
    assert np.isfinite(runner.forward(batch)).all()
    runner.close()


def test_info_is_honest(models: Models) -> None:
    source = models("qwen3")  # bfloat16, tied
    runner = load_on_twins(source, dtype="auto", kv_cache_dtype="int8", num_blocks=10)
    info, spec = runner.info, source.spec
    assert (info.dtype, info.device, info.asynchronous) == ("bfloat16", "cpu", False)
    tied = source.tensor("embed_tokens").nbytes
    assert source.num_bytes + tied <= info.weight_bytes <= 1.1 * (source.num_bytes + tied)
    token = 2 * spec.num_layers * spec.num_kv_heads * (spec.head_dim + 4)
    assert info.kv_cache_bytes == 10 * 16 * token
    assert info.max_num_logits == 512
    small = load_on_twins(source, quantization="w4a8", num_blocks=0)
    assert small.info.weight_bytes < 0.6 * info.weight_bytes
    assert small.info.num_blocks == small.info.max_num_seqs * MAX_MODEL_LEN // 16
    for each in (runner, small):
        each.close()


def test_closing_twice_is_harmless_and_a_closed_runner_says_so(models: Models) -> None:
    runner = load_on_twins(models("llama"))
    rig = Rig(runner)
    batch = rig.batch([(rig.strand(TOKENS[:5]), 5, 1)])
    kept = runner.forward(batch)
    runner.close()
    runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        runner.forward(batch)
    assert not kept.any(), "the memory was given back"


def test_an_executor_that_fails_is_closed(models: Models) -> None:
    closed: list[bool] = []

    class Failing(Twins):
        def pack(self, *arguments: Any) -> None:
            raise MemoryError("no scratch memory")

        def close(self) -> None:
            closed.append(True)

    with pytest.raises(MemoryError, match="scratch"):
        NativeBackend(Failing).load(models("llama"), settings())
    assert closed == [True]


def test_progress_is_told_as_the_weights_are_read(models: Models) -> None:
    read: dict[str, int] = {}
    source = Checkpoint.open(models("moe").path, on_read=read.__setitem__)
    load_on_twins(source).close()
    assert sum(read.values()) == source.num_bytes


def test_nothing_of_a_batch_is_kept(models: Models) -> None:
    runner = load_on_twins(models("llama"))
    rig = Rig(runner)
    batch: Batch = rig.batch([(rig.strand(TOKENS[:20]), 20, 1)])
    before = sys.getrefcount(batch.input_ids)
    runner.forward(batch)
    after = sys.getrefcount(batch.input_ids)
    assert after == before
    runner.close()


def test_listing_the_plugin_loads_no_kernels() -> None:
    code = (
        "import sys, isotoken.backends.native.plugin; "
        "sys.exit('isotoken.backends.native.backend' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
