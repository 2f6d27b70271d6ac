"""Steps, caches and runs for the tests of the CPU kernels: each operation alone, on any instruction set and team."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest
from isotoken.kernels.cpu import library, twins
from isotoken.kernels.cpu import program as p
from isotoken.kernels.cpu.team import Team
from isotoken.kernels.cpu.twins.cache import CacheView

ISAS = ("amx", "avx512_bf16", "avx512", "avx2", "plain")
FORMS = (p.FORM_F32, p.FORM_BF16, p.FORM_I8, p.FORM_I8_SUMMED)
CACHE_FORMS = (p.FORM_F32, p.FORM_BF16, p.FORM_I8)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@functools.cache
def team(num_threads: int, isa: str = "") -> Team:
    """A team of an instruction set, the best by default; the test is skipped where it does not run."""
    try:
        return library.load(isa).team(num_threads)
    except (ValueError, ImportError) as error:
        pytest.skip(str(error))


def run(isa: str, operation: p.Operation, step: p.Step, num_threads: int = 2) -> None:
    """Run one operation in C++, or by its twin where `isa` says so."""
    if isa == "twin":
        twins.run([operation], step)
        return
    team(num_threads, isa).prepare([operation])(step)


def aligned(shape: Sequence[int], dtype: object, fill: object = None) -> np.ndarray:
    """An array at a multiple of 64 bytes: garbage, or full of `fill`."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.full(size + 64, 0xA5, np.uint8)
    start = -memory.ctypes.data % 64
    array = memory[start : start + size].view(dtype).reshape(shape)
    if fill is not None:
        array[...] = fill
    return array


def filled_up(size: int) -> int:
    return -(-size // 32) * 32


def make_operand(form: int, num_rows: int, size: int, group: int = 32, ld: int = 0) -> p.Operand:
    """Garbage for an operation to write over."""
    dtype = {p.FORM_F32: np.float32, p.FORM_BF16: BFLOAT16, p.FORM_I8: np.uint8, p.FORM_I8_SUMMED: np.int8}[form]
    ld = ld or filled_up(size) + 32
    return p.Operand(
        values=aligned((num_rows, ld), dtype),
        scales=aligned((num_rows,), np.float32),
        sums=aligned((num_rows, -(-filled_up(size) // group)), np.int32),
        form=form,
        ld=ld,
        group=group,
    )


def parts(operand: p.Operand, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values up to the multiple of 32, scales and sums of an operand of make_operand."""
    kept = operand.kept
    return kept["values"][:, : filled_up(size)], kept["scales"], kept["sums"]


def make_step(
    lens: Sequence[tuple[int, int]], block_size: int = 16, seed: int = 0, logits: Sequence[int] | None = None
) -> p.Step:
    """A step of requests of (tokens computed before, tokens computed now), their blocks strewn over the pool."""
    rng = np.random.default_rng(seed)
    seq_lens = np.array([before + now for before, now in lens], np.int32)
    counts = -(-seq_lens // block_size)
    pool = rng.permutation(num_blocks(lens, block_size)).astype(np.int32)
    table = np.zeros((len(lens), max(counts, default=0) + 1), np.int32)
    for row, (count, end) in enumerate(zip(counts, np.cumsum(counts), strict=True)):
        table[row, :count] = pool[end - count : end]
    positions = [np.arange(before, before + now, dtype=np.int32) for before, now in lens]
    slots = [table[n, x // block_size] * block_size + x % block_size for n, x in enumerate(positions)]
    indices = np.array(range(sum(now for _, now in lens)) if logits is None else logits, np.int32)
    return p.Step(
        num_tokens=sum(map(len, positions)),
        num_requests=len(lens),
        num_logits=len(indices),
        table_width=table.shape[1],
        input_ids=np.zeros(sum(map(len, positions)), np.int32),
        positions=np.concatenate(positions),
        slot_mapping=np.concatenate(slots).astype(np.int32),
        query_start_loc=np.cumsum([0, *map(len, positions)]).astype(np.int32),
        seq_lens=seq_lens,
        block_table=table,
        logits_indices=indices,
    )


def num_blocks(lens: Sequence[tuple[int, int]], block_size: int) -> int:
    """A pool with some blocks to spare."""
    return sum(-(-(before + now) // block_size) for before, now in lens) + 3


def make_cache(form: int, blocks: int, block_size: int, kv_heads: int, dim: int) -> p.Cache:
    """A cache full of what earlier use may have left: infinities and what is not a number."""
    dtype = {p.FORM_F32: np.dtype(np.float32), p.FORM_BF16: BFLOAT16, p.FORM_I8: np.dtype(np.int8)}[form]
    shape = (blocks, block_size // 16, kv_heads, 16 * (-(-dim // 16) * 16))
    dirt = 77 if form == p.FORM_I8 else np.nan
    keys, values = aligned(shape, dtype, dirt), aligned(shape, dtype, dirt)
    if form != p.FORM_I8:
        values[..., ::3] = np.inf
    return p.Cache(
        keys=keys,
        values=values,
        key_scales=aligned((*shape[:3], 16), np.float32, np.nan),
        value_scales=aligned((*shape[:3], 16), np.float32, np.inf),
        form=form,
        block_size=block_size,
        num_kv_heads=kv_heads,
        head_dim=dim,
    )


def fill_cache(cache: p.Cache, step: p.Step, seed: int = 1, size: float = 1.0) -> None:
    """Write keys and values for all positions of all requests, a request's by its number alone."""
    table, seq_lens = step.kept["block_table"], step.kept["seq_lens"]
    view = CacheView(cache, len(cache.kept["keys"]))
    for n, seq_len in enumerate(seq_lens):
        rng = np.random.default_rng((seed, n))
        positions = np.arange(seq_len)
        slots = table[n, positions // cache.block_size] * cache.block_size + positions % cache.block_size
        shape = (2, int(seq_len), cache.num_kv_heads, cache.head_dim)
        view.write(slots, *(size * rng.standard_normal(shape, np.float32)))


def random_rows(rng: np.random.Generator, num_rows: int, size: int, ld: int = 0) -> np.ndarray:
    """Rows of float32, garbage beyond their size."""
    rows = aligned((num_rows, ld or filled_up(size) + 16), np.float32, np.nan)
    rows[:, :size] = rng.standard_normal((num_rows, size), np.float32)
    return rows
