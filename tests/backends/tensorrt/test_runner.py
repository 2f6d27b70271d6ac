"""The runner on the fake: windows of rows, recordings, row copies, memory, and what a row forgets."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from isotoken.conformance.judge import trace_of
from isotoken.conformance.models import MODELS
from isotoken.conformance.rig import Rig
from isotoken.core.types import Unsupported

from .conftest import Answer, Bench

RUN = "IExecutionContext.execute_async_v3"


def tokens_of(model: str, count: int, seed: int = 0) -> list[int]:
    dice = random.Random(seed)
    return [dice.randrange(MODELS[model].vocab_size) for _ in range(count)]


def assert_oracles(got: Any, model: str, tokens: list[int], row: int) -> None:
    due = trace_of(model, tuple(tokens)).logits[row]
    assert abs(got - due).max() <= 2e-5 * abs(due).max()


@pytest.mark.parametrize("model", list(MODELS))
def test_every_family_runs(bench: Bench, answer: Answer, model: str) -> None:
    tokens = tokens_of(model, 30)
    assert_oracles(answer(bench.load(model), tokens), model, tokens, 29)


@pytest.mark.parametrize("model", list(MODELS))
def test_float16_is_close(bench: Bench, answer: Answer, model: str) -> None:
    tokens = tokens_of(model, 30)
    due = trace_of(model, tuple(tokens)).logits[29]
    assert abs(answer(bench.load(model, dtype="float16"), tokens) - due).max() <= 2e-2 * abs(due).max()


def test_a_decode_is_recorded_once_for_each_window(bench: Bench, world: Any) -> None:
    """The first run of a window is a plain one, the next ones replay its recording."""
    runner = bench.load(num_blocks=8, block_size=64)
    rig = Rig(runner)
    strands = [rig.strand(tokens_of("llama", 20, i), row_id=i) for i in range(3)]
    rig.step([(s, 9, 0) for s in strands])
    world.CALLS.clear()
    for turn in range(5):
        for strand, got in zip(strands, rig.step([(s, 1, 1) for s in strands]), strict=True):
            assert_oracles(got[0], "llama", strand.tokens[: 10 + turn], 9 + turn)
    assert world.CALLS.count(RUN) == 2  # one that runs, one that is recorded
    assert bench.device.num_recordings == 1
    got = rig.step([(strands[1], 1, 1)])[0]
    assert_oracles(got[0], "llama", strands[1].tokens[:15], 14)
    assert bench.device.num_recordings == 2
    assert list(runner._recordings) == [(0, 4), (1, 1)]


def test_recordings_are_forgotten_when_there_are_too_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from isotoken.backends.tensorrt import runner as module

    monkeypatch.setattr(module, "MAX_RECORDINGS", 2)
    rig = Rig(bench.load())
    strands = [rig.strand(tokens_of("llama", 20, i), row_id=i) for i in range(4)]
    rig.step([(s, 9, 0) for s in strands])
    for turn in range(2):
        for strand in strands:
            assert_oracles(rig.step([(strand, 1, 1)])[0][0], "llama", strand.tokens[: 10 + turn], 9 + turn)
    assert bench.device.num_recordings == 8


def test_without_recordings_the_numbers_are_the_same(bench: Bench, world: Any) -> None:
    found = []
    for option in ("on", "off"):
        rig = Rig(bench.load(options={"cuda_graphs": option}))
        found.append(rig.feed(rig.strand(tokens_of("llama", 20)), [9, 1, 1, 3, 1, 5], all_rows=False))
    assert (found[0] == found[1]).all()
    assert bench.device.num_recordings == 1


def test_what_cannot_be_recorded_says_how_to_do_without(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from isotoken.backends.tensorrt.errors import TensorRTError

    def record(work: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(bench.device, "record", record)
    rig = Rig(bench.load())
    with pytest.raises(TensorRTError, match=r"not permitted.*set the option cuda_graphs=off"):
        rig.step([(rig.strand([1]), 1, 1)])


@pytest.mark.parametrize("seed", range(12))
def test_random_schedules_with_dirt_and_drafts(bench: Bench, seed: int) -> None:
    """Rows taken and given back, drafts rejected, windows with holes, more rows than requests; all by the oracle."""
    dice = random.Random(seed)
    model = dice.choice(["llama", "gemma2", "moe"])
    num_rows = dice.choice([4, 6, 9])
    runner = bench.load(model, num_blocks=num_rows, block_size=64, options={"verify_tokens": dice.choice(["2", "5"])})
    rig = Rig(runner, list(range(num_rows)))
    free, live = dice.sample(range(num_rows), num_rows), []
    print(f"seed {seed}: {model}, {num_rows} rows")
    for turn in range(40):
        while free and len(live) < 4 and dice.random() < 0.5:
            live.append(rig.strand(tokens_of(model, dice.randrange(3, 60), seed * 100 + turn), blocks=[free.pop(0)]))
        work = []
        for strand in dice.sample(live, len(live)):
            if strand.computed > 2 and dice.random() < 0.2:
                strand.computed -= dice.randrange(1, 3)  # drafts that were rejected
            left = len(strand.tokens) - strand.computed
            work.append((strand, min(left, dice.choice([1, 1, 1, 2, 4, 13])), dice.choice([0, 1])))
        if not work or sum(n for _, n, _ in work) > 64:
            continue
        for (strand, _, wanted), got in zip(work, rig.step(work), strict=True):
            if wanted:
                assert_oracles(got[0], model, strand.tokens, strand.computed - 1)
        for strand in [s for s in live if s.computed == len(s.tokens) or dice.random() < 0.05]:
            live.remove(strand)
            free.append(strand.blocks[0])


def test_nothing_of_an_earlier_owner_survives_in_a_row(bench: Bench, answer: Answer) -> None:
    """Masks multiply by zero, and zero times NaN is NaN: a row is cleared before another request reads past its end."""
    runner = bench.load(num_blocks=4, block_size=64)
    clean = answer(runner, tokens_of("llama", 9))
    memory = runner._cache._memory._bytes
    memory[:] = 0xFF  # NaN everywhere
    runner._cache._written[:] = runner._cache.shape.row_len
    assert (answer(runner, tokens_of("llama", 9)) == clean).all()
    rig = Rig(runner, [0, 1, 2, 3])
    source = rig.strand(tokens_of("llama", 20), row_id=0)
    rig.step([(source, 20, 0)])
    target = rig.strand(tokens_of("llama", 20), row_id=1)
    target.computed = 7
    got = rig.step([(target, 13, 1)], copies=[(source.blocks[0], target.blocks[0], 7)])[0]
    assert_oracles(got[0], "llama", target.tokens, 19)
    again = rig.strand(tokens_of("llama", 20), blocks=source.blocks)
    size = runner._cache.shape.position_bytes
    memory.reshape(runner._cache.shape.as_bytes)[:, source.blocks[0], :, 5 * size : 20 * size] = 0xFF
    again.computed = 5
    assert_oracles(rig.step([(again, 4, 1)])[0][0], "llama", again.tokens[:9], 8)


def test_what_padding_left_at_the_end_of_a_row_is_cleared_too(bench: Bench) -> None:
    """Holes write to the spare positions of a row, NaN perhaps where its first token was NaN: nothing may be left."""
    runner = bench.load(num_blocks=4, block_size=64)
    rig = Rig(runner, [0, 1, 2, 3])
    strands = [rig.strand(tokens_of("llama", 12, i), row_id=i) for i in range(3)]
    rig.step([(s, 9, 0) for s in strands])
    shape = runner._cache.shape
    memory = runner._cache._memory._bytes.reshape(shape.as_bytes)
    memory[:, strands[1].blocks[0], :, : shape.position_bytes] = 0xFF  # NaN at position 0
    rig.step([(strands[0], 1, 1), (strands[2], 1, 1)])  # row 1 is a hole
    assert np.isnan(memory.view(np.float32)[:, strands[1].blocks[0]]).any(axis=-1).any()
    fresh = rig.strand(tokens_of("llama", 12, 7), blocks=strands[1].blocks, row_id=1)
    assert_oracles(rig.step([(fresh, 12, 1)])[0][0], "llama", fresh.tokens, 11)


def test_holes_leave_what_free_rows_remember(bench: Bench) -> None:
    """A row between two that decode holds a prefix that somebody may still find."""
    runner = bench.load(num_blocks=4, block_size=64)
    rig = Rig(runner, [0, 1, 2, 3])
    strands = [rig.strand(tokens_of("llama", 30, i), row_id=i) for i in range(4)]
    rig.step([(s, 10, 0) for s in strands])
    rig.step([(strands[0], 1, 1), (strands[3], 1, 1)])
    rig.step([(strands[0], 3, 1), (strands[3], 2, 1)])
    for strand in (strands[1], strands[2]):
        assert_oracles(rig.step([(strand, 1, 1)])[0][0], "llama", strand.tokens[:11], 10)


def test_memory_is_given_back(bench: Bench) -> None:
    runner = bench.load()
    used = bench.device.used
    rig = Rig(runner)
    rig.step([(rig.strand([1, 2, 3]), 3, 1)])
    assert used == bench.device.used, "memory was allocated on the way"
    runner.close()
    runner.close()
    assert bench.device.used == 0
    with pytest.raises(RuntimeError, match="the runner is closed"):
        runner.forward(rig.batch([(rig.strand([1]), 1, 1)]))


def test_rows_are_fewer_where_memory_is_short(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each request is a wish; a number that was asked for is not."""
    info = bench.load().info
    some = int(2.5 * info.kv_cache_bytes / info.num_blocks)
    free = [bench.checkpoint().num_bytes + some, some]  # before the weights are there, and beside them
    monkeypatch.setattr(bench.device, "free_bytes", lambda: (free.pop(0), 1 << 40))
    assert bench.load(memory_fraction=1.0).info.num_blocks == 2
    free[:] = [bench.checkpoint().num_bytes + some]
    with pytest.raises(ValueError, match=r"4 row\(s\) of 64 tokens"):
        bench.load(memory_fraction=1.0, num_blocks=4, block_size=64)


def test_refitted_engines_are_small_and_the_same(bench: Bench, answer: Answer) -> None:
    tokens = tokens_of("gemma2", 20)
    whole = answer(bench.load("gemma2"), tokens)
    size = bench.plans()[0].stat().st_size
    refitted = bench.load("gemma2", options={"refit": "on"})
    assert (answer(refitted, tokens) == whole).all()
    assert min(path.stat().st_size for path in bench.plans()) < size / 2


@pytest.mark.parametrize("quantization", ["int8-rows", "fp8"])
def test_quantised_weights_are_what_they_stand_for(bench: Bench, answer: Answer, quantization: str) -> None:
    """The same logits as from a checkpoint whose matrices were rounded beforehand."""
    from isotoken.kernels.cpu.quantize import quantize_fp8, quantize_rows
    from safetensors.numpy import load_file, save_file

    tokens = tokens_of("llama", 20)
    quantised = answer(bench.load(quantization=quantization), tokens)
    file = bench.checkpoint().path / "model.safetensors"
    tensors = load_file(file)
    for name, weight in tensors.items():
        if "proj" in name or "lm_head" in name:
            values, scales = quantize_rows(weight) if quantization == "int8-rows" else quantize_fp8(weight)
            scales = scales[:, None] if quantization == "int8-rows" else scales
            tensors[name] = (values.astype(np.float32) * scales).astype(np.float32)
    assert "lm_head.weight" in tensors
    save_file(tensors, file)
    rounded = answer(bench.load(), tokens)
    assert abs(quantised - rounded).max() <= 2e-5 * abs(rounded).max()


@pytest.mark.parametrize(("model", "dtype"), [("llama", "float32"), ("qwen3", "bfloat16"), ("gemma2", "float16")])
def test_attention_is_in_tensorrts_dialect(bench: Bench, model: str, dtype: str) -> None:
    """May be decomposed, and scales the queries: the parser would scale the whole cache."""
    import onnx
    from isotoken.backends.onnx_graph import GraphOptions, build_graph
    from isotoken.backends.tensorrt.dialect import to_tensorrt

    checkpoint = bench.checkpoint(model)
    graph = build_graph(checkpoint, GraphOptions(attention="standard-mask", dtype=dtype, row_len=64))
    assert to_tensorrt(graph) == to_tensorrt(graph)
    proto = onnx.load_model_from_string(to_tensorrt(graph))
    makers = {name: node for node in proto.graph.node for name in node.output}
    values = {weight.name: weight for weight in proto.graph.initializer}
    found = [node for node in proto.graph.node if node.op_type == "Attention"]
    capped = checkpoint.spec.attention_softcap is not None  # in plain operators then
    assert len(found) == (0 if capped else checkpoint.spec.num_layers)
    for node in found:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes["TRT_decomposable"] == 1
        assert attributes["scale"] == 1.0
        scale = values[makers[node.input[0]].input[1]]
        assert onnx.helper.tensor_dtype_to_np_dtype(scale.data_type).name == dtype
        exact = checkpoint.spec.attention_scale
        assert abs(float(onnx.numpy_helper.to_array(scale)) - exact) <= exact / 200


def test_weights_are_read_where_they_lie(bench: Bench, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from isotoken.backends.onnx_graph import GraphOptions, build_graph
    from isotoken.backends.tensorrt.weights import Pointers

    checkpoint = bench.checkpoint("qwen3")
    graph = build_graph(checkpoint, GraphOptions(attention="standard-mask", dtype="bfloat16", row_len=64))
    pointers = Pointers(graph)
    mapped = next(iter(graph.files().values()))
    assert len(pointers) > 10
    assert pointers.num_bytes <= checkpoint.num_bytes + 65536
    for name, address, num_bytes in pointers:
        source = graph.weights[name]
        if hasattr(source, "offset"):
            start = source.offset
            assert (np.frombuffer(_bytes_at(address, num_bytes), np.uint8) == mapped[start : start + num_bytes]).all()


def _bytes_at(address: int, num_bytes: int) -> bytes:
    import ctypes

    return ctypes.string_at(address, num_bytes)


def test_the_engine_serves_prefixes_from_other_rows(bench: Bench) -> None:
    """Prefix caching is declared absent for shared blocks and there all the same, by copies."""
    can = bench.backend.capabilities
    assert not can.prefix_caching
    assert can.block_copies
    assert can.devices == {"cuda"}
    with pytest.raises(Unsupported):
        bench.load(quantization="int0")
