"""Attention in C++ against its twin in float64, and against itself: the same bits in any company."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from isotoken.kernels.cpu import program as p
from isotoken.kernels.cpu.twins.cache import CacheView

from .steps import (
    BFLOAT16,
    CACHE_FORMS,
    ISAS,
    aligned,
    fill_cache,
    filled_up,
    make_cache,
    make_operand,
    make_step,
    num_blocks,
    run,
)

LENS = ((0, 1), (199, 1), (0, 37), (511, 3), (700, 9), (1023, 2), (15, 1), (40, 5))  # (computed, now) of requests
SPREAD = 2.4  # standard deviation of scores: some positions get much weight, none all
TOLERANCE = {p.FORM_F32: 1.5e-5, p.FORM_BF16: 1.2e-2, p.FORM_I8: 4e-5}  # of bfloat16 the weights are rounded


def make_attention(
    form: int,
    step: p.Step,
    blocks: int,
    heads: tuple[int, int] = (12, 4),
    dim: int = 64,
    window: int = 0,
    cap: float = 0.0,
    out_form: int = p.FORM_F32,
    block_size: int = 16,
    seed: int = 2,
) -> p.Attention:
    num_heads, kv_heads = heads
    cache = make_cache(form, blocks, block_size, kv_heads, dim)
    fill_cache(cache, step)
    size = num_heads * dim
    queries = aligned((step.num_tokens, size + 5), np.float32 if form == p.FORM_F32 else BFLOAT16, np.nan)
    rng = np.random.default_rng(seed)
    queries[:, :size] = SPREAD / dim**0.5 * rng.standard_normal((step.num_tokens, size), np.float32)
    return p.Attention(
        queries=queries,
        out=make_operand(out_form, step.num_tokens, size),
        cache=cache,
        ld_queries=size + 5,
        num_heads=num_heads,
        window=window,
        cap=cap,
    )


def output(op: p.Attention, isa: str, step: p.Step, num_threads: int = 2) -> np.ndarray:
    """Run it and return all that was written, float32."""
    values = op.kept["out"].kept["values"]
    values[:] = np.nan
    run(isa, op, step, num_threads)
    return values[:, : filled_up(op.num_heads * op.cache.head_dim)].astype(np.float32)


def check(isa: str, form: int, lens: Sequence[tuple[int, int]] = LENS, block_size: int = 16, **shape: object) -> None:
    step = make_step(lens, block_size)
    op = make_attention(form, step, num_blocks(lens, block_size), block_size=block_size, **shape)
    expected, got = output(op, "twin", step), output(op, isa, step)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[form])
    assert np.abs(got - expected).mean() < TOLERANCE[form] / 8


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", CACHE_FORMS)
class TestAgainstTheTwin:
    @pytest.mark.parametrize("heads", [(12, 4), (4, 4), (7, 1), (20, 2)])
    def test_head_groups(self, isa: str, form: int, heads: tuple[int, int]) -> None:
        check(isa, form, heads=heads)

    @pytest.mark.parametrize("dim", [8, 20, 32, 80, 96, 128, 256])
    def test_head_sizes(self, isa: str, form: int, dim: int) -> None:
        check(isa, form, lens=((530, 2), (0, 9), (31, 1)), heads=(4, 2), dim=dim)

    @pytest.mark.parametrize("window", [1, 16, 100, 513, 700])
    def test_windows(self, isa: str, form: int, window: int) -> None:
        check(isa, form, heads=(4, 2), window=window)

    def test_caps(self, isa: str, form: int) -> None:
        check(isa, form, heads=(4, 2), cap=1.5)

    @pytest.mark.parametrize("block_size", [32, 48, 256, 1040])
    def test_block_sizes(self, isa: str, form: int, block_size: int) -> None:
        check(isa, form, heads=(4, 2), block_size=block_size)


@pytest.mark.parametrize("isa", ISAS)
def test_outputs_in_bfloat16_are_rounded_once(isa: str) -> None:
    step = make_step(LENS)
    wide, narrow = (
        make_attention(p.FORM_BF16, step, num_blocks(LENS, 16), out_form=form, heads=(3, 1), dim=24)
        for form in (p.FORM_F32, p.FORM_BF16)
    )
    np.testing.assert_array_equal(
        output(narrow, isa, step), output(wide, isa, step).astype(BFLOAT16).astype(np.float32)
    )
    assert not output(narrow, isa, step)[:, 72:].any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", CACHE_FORMS)
@pytest.mark.parametrize("window", [0, 70, 600])
def test_the_same_bits_in_any_company_chunk_and_team(isa: str, form: int, window: int) -> None:
    step = make_step(LENS)
    op = make_attention(form, step, num_blocks(LENS, 16), window=window, cap=20.0 if window else 0.0)
    whole = output(op, isa, step)
    for num_threads in (1, 3):
        np.testing.assert_array_equal(output(op, isa, step, num_threads), whole)
    rng = np.random.default_rng(3)
    starts, table = step.kept["query_start_loc"], step.kept["block_table"]
    for n, (before, now) in enumerate(LENS):  # each request alone, in pieces
        done = 0
        while done < now:
            count = int(rng.integers(1, min(now - done, 13) + 1))
            first = starts[n] + done
            part = p.Step(
                num_tokens=count,
                num_requests=1,
                table_width=table.shape[1],
                positions=step.kept["positions"][first : first + count].copy(),
                query_start_loc=np.array([0, count], np.int32),
                seq_lens=np.array([before + done + count], np.int32),
                block_table=table[n : n + 1].copy(),
            )
            queries = op.kept["queries"][first : first + count]
            alone = p.Attention(**{**op.kept, "queries": queries, "out": make_operand(p.FORM_F32, count, 12 * 64)})
            np.testing.assert_array_equal(output(alone, isa, part), whole[first : first + count])
            done += count


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", CACHE_FORMS)
def test_a_wrong_key_or_value_anywhere_shows(isa: str, form: int) -> None:
    """The tolerances are narrow enough: one token's key or value less, or its neighbour's, is found."""
    step = make_step([(90, 1)])
    op = make_attention(form, step, num_blocks([(90, 1)], 16), heads=(2, 1))
    expected = output(op, "twin", step)
    for name in ("keys", "values"):
        memory = op.kept["cache"].kept[name]
        piece = step.kept["block_table"][0, 3]
        memory[piece] = np.roll(memory[piece], 8, axis=-1)
        assert np.abs(output(op, isa, step) - expected).max() > 2 * TOLERANCE[form]
        memory[piece] = np.roll(memory[piece], -8, axis=-1)
    np.testing.assert_allclose(output(op, isa, step), expected, rtol=0, atol=TOLERANCE[form])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", CACHE_FORMS)
@pytest.mark.parametrize("broken", ["key", "value", "both"])
def test_a_token_that_is_not_a_number_is_not_passed_over(isa: str, form: int, broken: str) -> None:
    """Whoever sees it gets no number, in int8 too; other requests are as they were."""
    lens = ((40, 3), (20, 3))
    step = make_step(lens)
    op = make_attention(form, step, num_blocks(lens, 16), heads=(4, 2))
    before = output(op, isa, step)
    slot = step.kept["block_table"][0, 1:2] * 16 + 7
    numbers, none = np.ones((1, 2, 64), np.float32), np.full((1, 2, 64), np.nan, np.float32)
    key, value = (none if broken in (name, "both") else numbers for name in ("key", "value"))
    CacheView(op.cache, num_blocks(lens, 16)).write(slot, key, value)
    after = output(op, isa, step)
    assert np.isnan(after[:3]).all()
    np.testing.assert_array_equal(after[3:], before[3:])


def test_no_requests_is_no_work() -> None:
    step = p.Step(query_start_loc=np.zeros(1, np.int32))
    op = make_attention(p.FORM_F32, make_step([(0, 1)]), 4)
    run(ISAS[-1], op, step)
