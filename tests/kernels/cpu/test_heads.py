"""Heads in C++ against its twin: norms, rotations, scales, and where keys and values land in the cache."""

from __future__ import annotations

import numpy as np
import pytest
from isotoken.kernels.cpu import program as p
from isotoken.kernels.cpu.twins.cache import CacheView

from .steps import BFLOAT16, CACHE_FORMS, ISAS, aligned, make_cache, make_step, num_blocks, random_rows, run

LENS = ((0, 21), (17, 1), (46, 5))
MAX_CONTEXT = 64


def make_heads(
    form: int,
    step: p.Step,
    heads: tuple[int, int] = (6, 2),
    dim: int = 64,
    rotary_dim: int | None = None,
    norm: str = "none",
    block_size: int = 16,
) -> p.Heads:
    num_heads, kv_heads = heads
    rng = np.random.default_rng(dim)
    size = (num_heads + 2 * kv_heads) * dim
    qkv = random_rows(rng, step.num_tokens, size)
    q_size, k_size = {"none": (0, 0), "head": (dim, dim), "all": (num_heads * dim, kv_heads * dim)}[norm]
    rotary_dim = dim if rotary_dim is None else rotary_dim
    angles = np.arange(MAX_CONTEXT)[:, None] * rng.random(rotary_dim // 2)
    return p.Heads(
        qkv=qkv,
        queries=aligned((step.num_tokens, num_heads * dim + 7), np.float32 if form == p.FORM_F32 else BFLOAT16),
        q_norm=rng.random(q_size, np.float32) if norm != "none" else None,
        k_norm=rng.random(k_size, np.float32) if norm != "none" else None,
        rotations=np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) if rotary_dim else None,
        cache=make_cache(form, num_blocks(LENS, block_size), block_size, kv_heads, dim),
        ld=qkv.shape[1],
        ld_queries=num_heads * dim + 7,
        num_heads=num_heads,
        norm_all=norm == "all",
        rotary_dim=rotary_dim,
        eps=1e-6,
        query_scale=0.125,
    )


def results(op: p.Heads, isa: str, step: p.Step, num_threads: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values [T, ...] that it wrote, float32, int8 by what it stands for."""
    run(isa, op, step, num_threads)
    queries = op.kept["queries"][:, : op.num_heads * op.cache.head_dim].astype(np.float32)
    view = CacheView(op.cache, len(op.kept["cache"].kept["keys"]))
    blocks = np.arange(len(op.kept["cache"].kept["keys"]))
    slots = step.kept["slot_mapping"]
    keys, values = (x[slots].copy() for x in view.read(blocks, len(blocks) * op.cache.block_size))
    if op.cache.form == p.FORM_I8:
        scales = view.scales(blocks, len(blocks) * op.cache.block_size)
        keys, values = (x * scale[slots][..., None] for x, scale in zip((keys, values), scales, strict=True))
    return queries, keys, values


def check_close(form: int, got: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> None:
    coarse = {p.FORM_F32: 0.0, p.FORM_BF16: 2**-7, p.FORM_I8: 2**-7}[form]
    for part, right in zip(got, expected, strict=True):
        step = np.abs(right).max() / 127 * 1.01 if form == p.FORM_I8 and part.ndim > 2 else 0.0
        np.testing.assert_allclose(part, right, rtol=coarse + 2e-6, atol=step + 1e-6)
        assert (np.abs(part - right) > 3e-6).mean() < 0.01  # hardly any is rounded the other way


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", CACHE_FORMS)
class TestAgainstTheTwin:
    def check(self, isa: str, form: int, **shape: object) -> None:
        step = make_step(LENS, shape.get("block_size", 16))
        twin, op = make_heads(form, step, **shape), make_heads(form, step, **shape)
        check_close(form, results(op, isa, step), results(twin, "twin", step))

    @pytest.mark.parametrize("norm", ["none", "head", "all"])
    def test_norms(self, isa: str, form: int, norm: str) -> None:
        self.check(isa, form, norm=norm)

    @pytest.mark.parametrize("rotary_dim", [0, 16, 26, 64])
    def test_partial_rotations_and_none(self, isa: str, form: int, rotary_dim: int) -> None:
        self.check(isa, form, rotary_dim=rotary_dim, norm="head")

    @pytest.mark.parametrize("dim", [8, 20, 80, 100, 256])
    def test_head_sizes(self, isa: str, form: int, dim: int) -> None:
        self.check(isa, form, dim=dim, norm="all")

    @pytest.mark.parametrize("heads", [(1, 1), (7, 7), (9, 3)])
    @pytest.mark.parametrize("block_size", [32, 80])
    def test_head_counts_and_blocks(self, isa: str, form: int, heads: tuple[int, int], block_size: int) -> None:
        self.check(isa, form, heads=heads, block_size=block_size)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", CACHE_FORMS)
def test_nothing_but_its_slots_is_written_and_padding_is_zero(isa: str, form: int) -> None:
    step = make_step(LENS)
    op = make_heads(form, step, dim=20)
    cache = op.kept["cache"].kept
    before = {name: cache[name].copy() for name in ("keys", "values")}
    run(isa, op, step)
    twin = make_heads(form, step, dim=20)
    run("twin", twin, step)
    for name, memory in before.items():
        written = twin.kept["cache"].kept[name].view(np.uint8) != memory.view(np.uint8)
        changed = cache[name].view(np.uint8) != memory.view(np.uint8)
        assert changed.any()
        assert not (changed & ~written).mean() > 0.001  # the other rounding may touch a byte more within a slot
    view = CacheView(p.Cache(**{**cache, "head_dim": 32}), len(cache["keys"]))
    slots = step.kept["slot_mapping"]
    for dense in view.read(np.arange(len(cache["keys"])), len(cache["keys"]) * 16):
        assert not dense[slots][..., 20:].any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", CACHE_FORMS)
@pytest.mark.parametrize("norm", ["head", "all"])
def test_the_same_bits_in_any_company_and_team(isa: str, form: int, norm: str) -> None:
    step = make_step(LENS)
    op = make_heads(form, step, norm=norm)
    whole = results(op, isa, step)
    for num_threads in (1, 3):
        for part, again in zip(whole, results(make_heads(form, step, norm=norm), isa, step, num_threads), strict=True):
            np.testing.assert_array_equal(again, part)
    alone = make_heads(form, step, norm=norm)
    first = 23  # the first token of the last request
    part = p.Step(
        num_tokens=1,
        num_requests=1,
        positions=step.kept["positions"][first : first + 1],
        slot_mapping=step.kept["slot_mapping"][first : first + 1],
    )
    alone.qkv = op.kept["qkv"][first:].ctypes.data
    queries, keys, values = results(alone, isa, part)
    np.testing.assert_array_equal(queries[0], whole[0][first])
    np.testing.assert_array_equal(keys, whole[1][first : first + 1])
    np.testing.assert_array_equal(values, whole[2][first : first + 1])
