"""What the torch runner promises besides right answers: any batch, any dtype, copies, dirty memory, honest info."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from isotoken.backends.torch import memory
from isotoken.backends.torch.backend import TorchBackend, resolve_device
from isotoken.backends.torch.memory import CacheShape
from isotoken.backends.torch.profile import full_batch
from isotoken.backends.torch.runner import TorchRunner
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
from isotoken.core.types import Unsupported

from ..driver import Query, make_batch, run_all, scattered_tables
from ..families import Case

CaseOf = Callable[[str], Case]
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "device": "cpu",
    "max_model_len": 64,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 600,
    "num_blocks": 64,
}
# Of the largest logit. In 16 bits another batch may round otherwise, as torch picks its products by the number of rows.
TOLERANCE = {"float32": 2e-5, "float16": 1e-2, "bfloat16": 5e-2}


def load(case: Case, **settings: Any) -> TorchRunner:
    return TorchBackend().load(Checkpoint.open(case.folder), RunnerConfig(**{**SETTINGS, **settings}))


def whole(runner: TorchRunner, sequence: list[int], blocks: list[int]) -> np.ndarray:
    """Logits at every position of one sequence, alone and at once."""
    batch = make_batch([Query(0, 0, len(sequence))], [sequence], [blocks], runner.info.block_size)
    return np.asarray(runner.forward(batch)).copy()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Mixtures of experts in float32 only: in 16 bits a near-tie may send a token to another expert, and that changes all
# tokens after it; the conformance suite judges those by their routing margins.
@pytest.mark.parametrize(
    ("family", "dtype"),
    [*product(("llama", "gemma2"), ("float32", "bfloat16", "float16")), ("qwen3-moe", "float32")],
)
def test_any_company_gives_what_a_request_alone_gives(family: str, dtype: str, family_case: CaseOf) -> None:
    """Chunks, decodes and verifications of many requests mixed at random, against each sequence alone and at once."""
    case = family_case(family)
    runner = load(case, dtype=dtype)
    tables = scattered_tables(case.sequences, runner, seed=3)
    alone = [whole(runner, sequence, table) for sequence, table in zip(case.sequences, tables, strict=True)]
    mixed = run_all(runner, case.sequences, max_chunk=9, seed=5)
    for expected, oracle, got in zip(alone, case.logits, mixed, strict=True):
        bound = TOLERANCE[dtype] * abs(oracle).max()
        assert abs(got - oracle).max() <= bound
        assert abs(got - expected).max() <= bound
    runner.close()


def test_the_same_batch_again_gives_the_same_bits(family_case: CaseOf) -> None:
    case = family_case("llama")
    runner = load(case, dtype="bfloat16")
    tables = scattered_tables(case.sequences, runner, seed=0)
    queries = [Query(i, 0, len(sequence)) for i, sequence in enumerate(case.sequences)]
    batch = make_batch(queries, case.sequences, tables, runner.info.block_size)
    first = np.asarray(runner.forward(batch)).copy()
    assert np.array_equal(first, np.asarray(runner.forward(batch)))


@pytest.mark.parametrize("copied", [1, 3, 16, 21])
def test_copied_blocks_serve_as_computed_ones(copied: int, family_case: CaseOf) -> None:
    """A prefix copied to another row, in a cache of whole rows, continues as if it had been computed there."""
    case = family_case("llama")
    sequence = max(case.sequences, key=len)
    runner = load(case, block_size=64, num_blocks=4)
    expected = whole(runner, sequence, [2])
    batch = make_batch(
        [Query(0, copied, len(sequence))], [sequence], [[1]], runner.info.block_size, copies=[(2, 1, copied)]
    )
    for _ in range(2):  # a forward may be repeated, copies and all
        got = np.asarray(runner.forward(batch))
        assert abs(got - expected[copied:]).max() <= TOLERANCE["float32"] * abs(expected).max()


@pytest.mark.parametrize("block_size", [1, 7, 16, 64])
def test_what_earlier_owners_left_in_the_cache_does_not_matter(block_size: int, family_case: CaseOf) -> None:
    case = family_case("gemma2")
    runner = load(case, block_size=block_size, num_blocks=-(-64 // block_size) * 12)
    with torch.inference_mode():
        runner.caches[:, :-1] = torch.nan
    for got, want in zip(run_all(runner, case.sequences, max_chunk=9), case.logits, strict=True):
        assert abs(got - want).max() <= TOLERANCE["float32"] * abs(want).max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3-moe"])
def test_no_logits(family: str, dtype: str, family_case: CaseOf) -> None:
    runner = load(family_case(family), dtype=dtype)
    batch = make_batch([Query(0, 0, 3)], [[5, 6, 7]], [[0]], runner.info.block_size, logits=False)
    assert tuple(runner.forward(batch).shape) == (0, runner.info.vocab_size)


def test_a_chunk_without_logits_is_remembered(family_case: CaseOf) -> None:
    """The last layer skips what nobody asked for, except the K/V."""
    case = family_case("llama")
    runner = load(case)
    sequence = max(case.sequences, key=len)
    expected, blocks = whole(runner, sequence, [0, 1, 2, 3]), [4, 5, 6, 7]
    runner.forward(make_batch([Query(0, 0, 9)], [sequence], [blocks], runner.info.block_size, logits=False))
    rest = make_batch([Query(0, 9, len(sequence))], [sequence], [blocks], runner.info.block_size)
    few = replace(rest, logits_indices=np.array([1, 3], np.int32))
    got = np.asarray(runner.forward(few))
    assert got.shape == (2, runner.info.vocab_size)
    assert abs(got - expected[[10, 12]]).max() <= TOLERANCE["float32"] * abs(expected).max()


def test_info_is_honest(family_case: CaseOf) -> None:
    case = family_case("llama")
    runner = load(case)
    info, spec = runner.info, Checkpoint.open(case.folder).spec
    assert (info.dtype, info.device, info.asynchronous) == ("float32", "cpu", False)
    assert (info.block_size, info.num_blocks, info.max_model_len) == (16, 64, 64)
    assert info.weight_bytes == Checkpoint.open(case.folder).num_bytes
    assert info.kv_cache_bytes == 64 * 16 * spec.num_layers * 2 * spec.num_kv_heads * spec.head_dim * 4
    assert info.max_num_logits >= info.max_num_seqs
    assert load(case, max_num_logits=20).info.max_num_logits == 20
    assert load(case, max_num_logits=2).info.max_num_logits == 16
    assert load(case, dtype="auto").info.dtype == Checkpoint.open(case.folder).dtype
    assert load(case, block_size=100).info.block_size == 64  # a block longer than the context is no use


def test_closing_twice_is_harmless_and_a_closed_runner_says_so(family_case: CaseOf) -> None:
    runner = load(family_case("llama"))
    batch = make_batch([Query(0, 0, 3)], [[5, 6, 7]], [[0]], runner.info.block_size)
    runner.close()
    runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        runner.forward(batch)


def test_packed_weights_change_nothing_but_roundings(family_case: CaseOf) -> None:
    case = family_case("llama")
    answers = [
        run_all(load(case, dtype="bfloat16", options={"packed_weights": packed}), case.sequences, max_chunk=9)
        for packed in ("auto", "off")
    ]
    for packed, plain in zip(*answers, strict=True):
        assert abs(packed - plain).max() <= TOLERANCE["bfloat16"] * abs(plain).max()


def test_threads_are_set_when_asked(family_case: CaseOf, threads: None) -> None:
    for count in (2, 1):
        load(family_case("llama"), num_threads=count)
        assert torch.get_num_threads() == count


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"options": {"pakced_weights": "off"}}, ValueError, "unknown option 'pakced_weights'.*packed_weights"),
        ({"options": {"packed_weights": "maybe"}}, ValueError, "'maybe', expected one of auto, off"),
        ({"dtype": "int8"}, Unsupported, "dtype 'int8' is not one of"),
        ({"device": "tpu"}, Unsupported, "device 'tpu' is not one of"),
        ({"quantization": "int4"}, Unsupported, "torch does not offer quantization='int4'; it offers: none"),
        ({"kv_cache_dtype": "fp8"}, Unsupported, "torch does not offer kv_cache_dtype='fp8'; it offers: auto"),
        ({"tensor_parallel_size": 2}, Unsupported, "tensor_parallel_size 2"),
        ({"max_model_len": 1 << 30}, ValueError, "max_model_len"),
        ({"num_blocks": 1 << 40}, ValueError, "do not fit .* free memory.*lower num_blocks"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    settings: dict[str, Any], error: type[Exception], says: str, family_case: CaseOf
) -> None:
    with pytest.raises(error, match=says):
        load(family_case("llama"), **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_said_to_be_missing() -> None:
    with pytest.raises(Unsupported, match=r"built without CUDA|finds none"):
        resolve_device("cuda")
    can = TorchBackend().capabilities
    assert can.devices == {"cpu"}
    assert "torch" in can.missing_devices["cuda"]
    assert resolve_device("auto") == torch.device("cpu")


def test_the_largest_step_runs(family_case: CaseOf) -> None:
    """The batch that is profiled on a GPU is one that the runner can run."""
    runner = load(family_case("llama"))
    batch = full_batch(150, 64, runner.info.block_size, 10)
    assert np.diff(batch.query_start_loc).tolist() == [64, 64, 22]
    logits = runner.forward(replace(batch, input_ids=batch.input_ids + 5))
    assert logits.shape == (10, runner.info.vocab_size)
    assert torch.isfinite(logits).all()


SHAPE = CacheShape(num_layers=2, num_heads=4, head_dim=8, block_size=16, dtype=torch.float32)  # 4 KiB a block


def test_the_cache_holds_every_request_where_memory_allows() -> None:
    assert SHAPE.block_bytes == 4096
    sizes = {"max_model_len": 100, "max_num_seqs": 8, "memory_fraction": 0.5}
    assert memory.cpu_num_blocks(SHAPE, **sizes, free=1 << 30) == 7 * 8
    assert memory.cpu_num_blocks(SHAPE, **sizes, free=20 * 4096) == 10
    plenty = {"memory_fraction": 1.0, "free": 1 << 40}
    assert memory.cpu_num_blocks(SHAPE, max_model_len=1 << 25, max_num_seqs=1, **plenty) == 1 << 21  # one context
    assert memory.cpu_num_blocks(SHAPE, max_model_len=16, max_num_seqs=1 << 25, **plenty) == 1 << 19  # 2 GiB
    with pytest.raises(ValueError, match="a context of 100 tokens needs"):
        memory.cpu_num_blocks(SHAPE, **sizes, free=4096)


def test_a_gpu_is_filled_up_to_its_fraction() -> None:
    sizes = {"max_model_len": 100, "total": 1000 * 4096}
    assert memory.cuda_num_blocks(SHAPE, **sizes, memory_fraction=0.9, free=500 * 4096, reserve=100 * 4096) == 300
    with pytest.raises(ValueError, match="raise memory_fraction"):
        memory.cuda_num_blocks(SHAPE, **sizes, memory_fraction=0.5, free=500 * 4096, reserve=0)


@pytest.mark.parametrize(
    ("block_size", "tile_size"), [(1, 1), (16, 16), (48, 16), (4096, 16), (7, 7), (23, 1), (64, 16)]
)
def test_a_block_is_whole_tiles(block_size: int, tile_size: int) -> None:
    shape = replace(SHAPE, block_size=block_size)
    assert (shape.tile_size, shape.tile_size * shape.tiles_per_block) == (tile_size, block_size)


def test_listing_the_plugin_does_not_import_torch() -> None:
    code = "import sys, isotoken.backends.torch.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
