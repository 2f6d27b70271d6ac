"""Norm and AddNorm in C++ against their twins: every form of activations, odd sizes, rows of every kind."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from isotoken.kernels.cpu import program as p

from .steps import BFLOAT16, FORMS, ISAS, filled_up, make_operand, make_step, parts, random_rows, run

SIZES = (1, 8, 31, 64, 100, 160, 576, 2051)
EPS = 1e-5


def make_norm(form: int, rows: int, size: int, num_rows: int, weighted: bool = True, group: int = 32) -> p.Norm:
    rng = np.random.default_rng(size)
    x = random_rows(rng, num_rows, size) * np.float32(3)
    x[num_rows // 2, :size] = 0  # a row of zeros has a scale too
    return p.Norm(
        p.Head(rows=rows),
        x=x,
        weight=rng.standard_normal(size, np.float32) if weighted else None,
        out=make_operand(form, num_rows, size, group),
        size=size,
        ld=x.shape[1],
        eps=EPS,
    )


def outputs(op: p.Norm, isa: str, step: p.Step, num_threads: int = 2) -> list[np.ndarray]:
    """Run it and return values, scales and sums."""
    for part in parts(op.kept["out"], op.size):
        part.view(np.uint8)[...] = 0xA5
    run(isa, op, step, num_threads)
    return [part.copy() for part in parts(op.kept["out"], op.size)]


def check_close(form: int, got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Compare values by what they stand for; a rounding may fall the other way, and then the sums differ with it."""
    if form in (p.FORM_F32, p.FORM_BF16):
        wide = [part[0].astype(np.float32) for part in (got, expected)]
        rtol = 2e-6 if form == p.FORM_F32 else 2**-7
        np.testing.assert_allclose(*wide, rtol=rtol, atol=1e-7)
        return
    np.testing.assert_allclose(got[1], expected[1], rtol=2e-6)
    steps = got[0].astype(int) - expected[0]
    assert abs(steps).max() <= 1
    assert (steps != 0).mean() < 0.002


def check_sums(op: p.Norm, got: list[np.ndarray]) -> None:
    """Whatever the values are, the groups' sums are theirs."""
    values, _, sums = got
    starts = np.arange(0, filled_up(op.size), op.out.group)
    np.testing.assert_array_equal(sums, -8 * np.add.reduceat(values.astype(int), starts, axis=1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weighted", [True, False])
def test_norm(isa: str, form: int, size: int, weighted: bool) -> None:
    step = make_step([(0, 7)])
    op = make_norm(form, p.ROWS_TOKENS, size, 7, weighted)
    expected, got = outputs(op, "twin", step), outputs(op, isa, step)
    check_close(form, got, expected)
    if form == p.FORM_I8_SUMMED:
        check_sums(op, got)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [64, 200, 384])
def test_groups_longer_than_32_and_a_last_that_is_short(isa: str, size: int) -> None:
    op = make_norm(p.FORM_I8_SUMMED, p.ROWS_TOKENS, size, 5, group=128)
    check_sums(op, outputs(op, isa, make_step([(0, 5)])))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
def test_filled_up_with_zeros(isa: str, form: int) -> None:
    op = make_norm(form, p.ROWS_TOKENS, 40, 3)
    values = outputs(op, isa, make_step([(0, 3)]))[0]
    zero = 128 if form == p.FORM_I8 else 0
    assert (values[:, 40:] == zero).all()


@pytest.mark.parametrize("isa", ISAS)
def test_only_the_rows_of_the_logits(isa: str) -> None:
    step = make_step([(3, 4), (9, 1)], logits=[1, 3, 4])
    op = make_norm(p.FORM_F32, p.ROWS_LOGITS, 70, 5)
    check_close(p.FORM_F32, outputs(op, isa, step), outputs(op, "twin", step))
    chosen = outputs(op, isa, step)[0]
    op.head.rows = p.ROWS_TOKENS
    np.testing.assert_array_equal(chosen[:3], outputs(op, isa, step)[0][[1, 3, 4]])
    op.head.rows = p.ROWS_CHOSEN  # rows 0, 1, 2 as they lie
    np.testing.assert_allclose(outputs(op, isa, step)[0][:3], outputs(op, "twin", step)[0][:3], rtol=2e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_only_the_rows_of_an_expert(isa: str) -> None:
    starts = np.array([0, 2, 2, 6], np.int32)
    routing = p.Routing(num_experts=3, top_k=2, starts=starts)
    op = make_norm(p.FORM_BF16, p.ROWS_EXPERT, 50, 6)
    op.head.routing = ctypes.addressof(routing)
    step = make_step([(0, 3)])
    for expert in range(3):
        op.head.expert = expert
        got, expected = outputs(op, isa, step)[0], outputs(op, "twin", step)[0]
        np.testing.assert_array_equal(got.view(np.uint16)[: starts[expert]], 0xA5A5)
        np.testing.assert_array_equal(got.view(np.uint16)[starts[expert + 1] :], 0xA5A5)
        rows = slice(starts[expert], starts[expert + 1])
        np.testing.assert_allclose(got[rows].astype(float), expected[rows].astype(float), rtol=2**-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
def test_the_same_bits_in_any_company_and_team(isa: str, form: int) -> None:
    op = make_norm(form, p.ROWS_TOKENS, 333, 9)
    whole = outputs(op, isa, make_step([(0, 9)]))
    for num_threads in (1, 3):
        for part, again in zip(whole, outputs(op, isa, make_step([(0, 9)]), num_threads), strict=True):
            np.testing.assert_array_equal(again.view(np.uint8), part.view(np.uint8))
    for part, alone in zip(whole, outputs(op, isa, make_step([(0, 1)])), strict=True):
        np.testing.assert_array_equal(alone[:1].view(np.uint8), part[:1].view(np.uint8))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weighted", [True, False])
def test_add_norm(isa: str, size: int, weighted: bool) -> None:
    rng = np.random.default_rng(size)
    before, y = random_rows(rng, 6, size), random_rows(rng, 6, size, size + 3)
    weight = rng.standard_normal(size, np.float32) if weighted else None
    results = []
    for which in (isa, "twin"):
        x = before.copy()
        op = p.AddNorm(x=x, y=y, weight=weight, size=size, ld_x=x.shape[1], ld_y=size + 3, eps=EPS, factor=0.22)
        run(which, op, make_step([(0, 6)]))
        results.append(x)
    got, expected = results
    np.testing.assert_allclose(got[:, :size], expected[:, :size], rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(got[:, size:], before[:, size:])  # nothing beside it is touched
    assert np.abs(got[:, :size] - before[:, :size]).max() > 0


@pytest.mark.parametrize("isa", ISAS)
def test_bfloat16_is_rounded_to_even(isa: str) -> None:
    """Without a weight the Norm is a change of form alone: exactly the rounding of bfloat16."""
    op = make_norm(p.FORM_BF16, p.ROWS_TOKENS, 96, 4, weighted=False)
    x = op.kept["x"]
    x[0, :4] = [1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 3.0e38]  # ties
    values = outputs(op, isa, make_step([(0, 4)]))[0]
    np.testing.assert_array_equal(values.view(np.uint16), x[:, :96].astype(BFLOAT16).view(np.uint16))


NOT_NUMBERS = (0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001)
NOT_FINITE = np.array([*NOT_NUMBERS, 0x7F800000, 0xFF800000], np.uint32).view(np.float32)


@pytest.mark.parametrize("isa", [*ISAS, "twin"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [40, 96])
def test_what_is_not_finite_stays_so(isa: str, form: int, size: int) -> None:
    """Wherever in a row it stands: int8 has a scale for that, which is not a number."""
    num_rows = len(NOT_FINITE) * size + 1
    op = make_norm(form, p.ROWS_TOKENS, size, num_rows, weighted=False)
    for i in range(num_rows - 1):
        op.kept["x"][i, i % size] = NOT_FINITE[i // size]
    values, scales, sums = outputs(op, isa, make_step([(0, num_rows)]))
    if form in (p.FORM_F32, p.FORM_BF16):
        assert (~np.isfinite(values.astype(np.float32))).sum() == num_rows - 1
        return
    assert np.isnan(scales[:-1]).all()
    assert np.isfinite(scales[-1])
    assert (values[:-1] == (128 if form == p.FORM_I8 else 0)).all()
    assert form == p.FORM_I8 or not sums[:-1].any()


@pytest.mark.parametrize("isa", ISAS)
def test_bfloat16_of_what_is_not_a_number(isa: str) -> None:
    """Rounded as others are, 0x7fffffff would become -0 and 0x7f800001 infinite."""
    op = make_norm(p.FORM_BF16, p.ROWS_TOKENS, 96, 1, weighted=False)
    op.kept["x"][0, : len(NOT_FINITE)] = NOT_FINITE
    values = outputs(op, isa, make_step([(0, 1)]))[0].astype(np.float32)
    assert np.isnan(values[0, :4]).all()
    np.testing.assert_array_equal(values[0, 4:6], [np.inf, -np.inf])
