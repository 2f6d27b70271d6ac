"""The contract of a backend and its runners: CON in SPEC.md."""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isotoken.conformance.lab import MAX_MODEL_LEN, MAX_NUM_SEQS, Lab
from isotoken.conformance.models import LLAMA
from isotoken.conformance.rig import Rig, on_host
from isotoken.conformance.spec import requires, spec
from isotoken.conformance.test_greedy import named
from isotoken.core.capabilities import Unavailable
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.types import CheckpointError, Unsupported

TOKENS = [
    17,
    99,
    3,
    54,
    120,
    8,
    77,
    41,
    5,
    66,
    102,
    33,
    90,
    12,
    71,
    28,
    44,
    109,
    63,
    9,
    87,
    36,
    118,
    50,
    21,
    95,
    60,
    14,
]


@spec("CON-1")
def test_declarations_are_honest(lab: Lab) -> None:
    assert lab.backend.name == lab.target.backend
    assert lab.can.dtypes
    assert lab.can.devices
    for field in dataclasses.fields(lab.can):
        value = getattr(lab.can, field.name)
        if isinstance(value, Unavailable):
            assert value.reason.strip(), f"{field.name} is declared absent without a reason"


@spec("CON-1")
def test_every_declared_dtype_loads(lab: Lab) -> None:
    for dtype in sorted(lab.can.dtypes):
        runner = lab.load(dtype=dtype, quantization=None)
        assert runner.info.dtype == dtype
        runner.close()


@spec("CON-15")
def test_every_declared_quantization_and_cache_dtype_loads(lab: Lab) -> None:
    declared = {"quantization": lab.can.quantizations, "kv_cache_dtype": lab.can.kv_cache_dtypes}
    if not any(declared.values()):
        pytest.skip("none is declared")
    dtypes = sorted(lab.can.dtypes, key=lambda dtype: dtype != lab.target.dtype)  # the target's own first
    for field, names in declared.items():
        for name in sorted(names):
            refused = []
            for dtype in dtypes:
                try:
                    changes: dict[str, Any] = {"quantization": None, "dtype": dtype, field: name}
                    runner = lab.load(**changes)
                except (Unsupported, ValueError) as error:
                    refused.append(f"{dtype}: {error}")
                    continue
                Rig(runner).step([(Rig(runner).strand(TOKENS), 28, 1)])
                runner.close()
                break
            assert len(refused) < len(dtypes), f"{field}={name} is declared, but refused in {'; '.join(refused)}"


@spec("CON-2")
def test_info_is_honest(lab: Lab) -> None:
    info = lab.runner().info
    assert info.vocab_size == LLAMA.vocab_size
    assert info.eos_token_ids == {LLAMA.eos}
    assert info.dtype == lab.target.dtype
    assert info.device.split(":")[0] == lab.device.split(":")[0]
    assert 1 <= info.max_model_len <= MAX_MODEL_LEN
    assert 1 <= info.max_num_seqs <= MAX_NUM_SEQS
    assert 1 <= info.max_num_batched_tokens <= 512
    assert info.max_num_logits >= info.max_num_seqs
    assert info.num_blocks * info.block_size >= info.max_model_len
    assert info.weight_bytes >= 0
    assert info.kv_cache_bytes >= 0


@spec("CON-3")
def test_logits_have_their_shape(lab: Lab) -> None:
    rig = lab.rig()
    one, other = rig.strand(TOKENS[:5], row_id=0), rig.strand(TOKENS, row_id=1)
    logits = rig.step([(one, 5, 1), (other, 28, 1)])
    assert all(np.isfinite(rows).all() for rows in logits)


@spec("CON-3")
def test_a_step_without_logits_still_writes(lab: Lab) -> None:
    rig = lab.rig()
    strand = rig.strand(TOKENS)
    assert rig.step([(strand, 20, 0)])[0].shape == (0, LLAMA.vocab_size)
    lab.check_logits(rig.step([(strand, 8, 1)])[0], TOKENS, [27], "llama")


@spec("CON-4")
def test_dirty_blocks_are_of_no_consequence(lab: Lab) -> None:
    rig = lab.rig()
    size = rig.runner.info.block_size
    dirt = rig.strand((TOKENS * 10)[: min(4 * size, MAX_MODEL_LEN)])
    for start in range(0, len(dirt.tokens), 64):
        rig.step([(dirt, len(dirt.tokens[start : start + 64]), 1)])
    strand = rig.strand(TOKENS, blocks=dirt.blocks[::-1])
    got = rig.feed(strand, [3, 1, 1, 10, 1, 12], all_rows=False)
    lab.check_logits(got, TOKENS, [2, 3, 4, 14, 15, 27], "llama")


@spec("CON-4")
def test_block_table_beyond_the_context_is_not_read(lab: Lab) -> None:
    rig = lab.rig()
    other, strand = rig.strand(TOKENS[::-1], row_id=1), rig.strand(TOKENS, row_id=0)
    rig.step([(other, 28, 1)])
    rig.step([(strand, 20, 1)], junk=5)
    got = rig.step([(strand, 8, 1)], junk=5)[0]
    lab.check_logits(got, TOKENS, [27], "llama")


@spec("CON-5")
def test_blocks_and_rows_may_be_any(lab: Lab) -> None:
    rig = lab.rig()
    count = rig.runner.info.num_blocks
    long = (TOKENS * 3)[:70]
    apart = [count - 1 - 3 * i if 3 * i < count else i for i in range(-(-70 // rig.runner.info.block_size))]
    strand = rig.strand(long, blocks=apart, row_id=rig.runner.info.max_num_seqs - 1)
    got = rig.feed(strand, [30, 1, 38, 1], all_rows=False)
    lab.check_logits(got, long, [29, 30, 68, 69], "llama")


@spec("CON-6")
def test_forward_is_idempotent(lab: Lab) -> None:
    rig = lab.rig()
    one, other = rig.strand(TOKENS, row_id=0), rig.strand(TOKENS[::-1], row_id=1)
    rig.step([(one, 11, 0), (other, 3, 1)])
    batch = rig.batch([(one, 17, 1), (other, 1, 1)])
    first = on_host(rig.runner.forward(batch))
    second = on_host(rig.runner.forward(batch))
    lab.same_logits(first, second, "the same batch twice")
    lab.check_logits(second[:1], TOKENS, [27], "llama")


@spec("CON-7")
@requires("block_copies")
@pytest.mark.parametrize("part", [1, 5, 16])
def test_block_copies_come_first(lab: Lab, part: int) -> None:
    rig = lab.rig()
    size = rig.runner.info.block_size
    part = min(part, size)
    source = rig.strand((TOKENS * 20)[:size])
    rig.step([(source, size, 1)])
    tokens = [*source.tokens[:part], 7, 101, 30]
    strand = rig.strand(tokens, row_id=1)
    strand.computed = part
    batch = rig.batch([(strand, 3, 1)], copies=[(source.blocks[0], strand.blocks[0], part)])
    lab.check_logits(on_host(rig.runner.forward(batch)), tokens, [len(tokens) - 1], "llama")
    if size == rig.runner.info.max_model_len:
        return
    more = rig.strand([*source.tokens, 9], blocks=[source.blocks[0], *rig.strand([1]).blocks])
    more.computed = size
    lab.check_logits(rig.step([(more, 1, 1)])[0], more.tokens, [size], "llama")


@spec("CON-8")
def test_the_batch_stays_the_callers(lab: Lab) -> None:
    rig = lab.rig()
    strand = rig.strand(TOKENS)
    batch = rig.batch([(strand, 20, 1)])
    names = [f.name for f in dataclasses.fields(batch) if f.name != "sampling"]
    before = {name: getattr(batch, name).copy() for name in names}
    logits = rig.runner.forward(batch)
    for name in names:
        assert np.array_equal(getattr(batch, name), before[name]), f"forward changed {name}"
    got = on_host(logits)
    for name in names:
        getattr(batch, name).fill(0)
    strand.computed = 20
    lab.check_logits(got, TOKENS[:20], [19], "llama")
    lab.check_logits(rig.step([(strand, 8, 1)])[0], TOKENS, [27], "llama")


@spec("CON-9")
def test_close_twice_and_load_again(lab: Lab) -> None:
    runner = lab.load()
    runner.close()
    runner.close()
    again = lab.load()
    rig = Rig(again)
    lab.check_logits(rig.step([(rig.strand(TOKENS), 28, 1)])[0], TOKENS, [27], "llama")
    again.close()


@spec("CON-10")
def test_two_runners_at_once(lab: Lab) -> None:
    one, other = Rig(lab.load()), Rig(lab.load("qwen3"))
    mine, theirs = one.strand(TOKENS), other.strand(TOKENS[::-1])
    one.step([(mine, 20, 1)])
    other.step([(theirs, 20, 1)])
    lab.check_logits(one.step([(mine, 8, 1)])[0], TOKENS, [27], "llama")
    one.runner.close()
    lab.check_logits(other.step([(theirs, 8, 1)])[0], TOKENS[::-1], [27], "qwen3")
    other.runner.close()


@spec("CON-11")
@requires("prefix_caching")
def test_a_block_in_several_tables(lab: Lab) -> None:
    rig = lab.rig()
    size = rig.runner.info.block_size
    if size == rig.runner.info.max_model_len:
        pytest.skip("no request is longer than a block")
    prefix = rig.strand((TOKENS * 20)[:size])
    rig.step([(prefix, size, 1)])
    strands = []
    for row in range(3):
        tokens = prefix.tokens + TOKENS[row : row + 4]
        strand = rig.strand(tokens, blocks=prefix.blocks + rig.strand([0]).blocks, row_id=row)
        strand.computed = size
        strands.append(strand)
    for strand, got in zip(strands, rig.step([(s, 4, 1) for s in strands]), strict=True):
        lab.check_logits(got, strand.tokens, [size + 3], "llama")


@spec("CON-12")
@pytest.mark.parametrize(
    "field", ["dtype", "device", "quantization", "kv_cache_dtype", "tensor_parallel_size", "options"]
)
def test_the_undeclared_is_refused(lab: Lab, field: str) -> None:
    undeclared: dict[str, Any] = {
        "dtype": "float8_none",
        "device": "abacus",
        "quantization": "int0",
        "kv_cache_dtype": "float8_none",
        "tensor_parallel_size": lab.can.max_tensor_parallel_size + 1,
        "options": {**dict(lab.target.options), "no_such_option": "1"},
    }
    lab.refuses(lambda: lab.load(**{field: undeclared[field]}))


@spec("CON-12")
def test_undeclared_dtypes_are_refused(lab: Lab) -> None:
    for dtype in {"float64", "float32", "bfloat16", "float16"} - lab.can.dtypes:
        message = lab.refuses(partial(lab.load, dtype=dtype, quantization=None))
        assert dtype in message


@spec("CON-13")
def test_absent_speculation_is_refused(lab: Lab) -> None:
    if lab.can.speculative:
        return  # proven by the SPE tests instead
    rig = lab.rig()
    strand = rig.strand(TOKENS)
    rig.step([(strand, 10, 1)])
    with pytest.raises(Unsupported):
        rig.step([(strand, 3, 3)])
    with pytest.raises(Unsupported):
        lab.build(drafter="ngram")


@spec("CON-13")
def test_the_engine_obeys_the_declaration(lab: Lab) -> None:
    """build_engine is what every service starts with: it refuses, or does without, what is declared absent."""
    lab.need("chunked_prefill")
    said: list[int] = []
    built = lab.build(publish=lambda outputs: said.extend(t for o in outputs for t in o.token_ids))
    case = named("greedy-block")
    for _ in range(2):
        request = case.request()
        built.engine.add(request)
        built.engine.run()
        rows = lab.runner().info.block_size >= MAX_MODEL_LEN  # a prefix is then found by copying
        assert request.num_cached_tokens == 0 or (lab.can.block_copies if rows else lab.can.prefix_caching)
    built.engine.close()
    if lab.target.exact:
        assert said == 2 * list(case.tokens or ())


@spec("CON-14")
def test_damaged_checkpoints_are_refused(lab: Lab, tmp_path: Path) -> None:
    good = Path(lab.checkpoint("llama").path)
    folder = tmp_path / "cut"
    shutil.copytree(good, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        lab.backend.load(Checkpoint.open(folder), lab.config())
