"""Linear layers in C++ against their numpy twin, and the same bits whatever surrounds a row."""

from __future__ import annotations

import numpy as np
import pytest
from isotoken.kernels.cpu import program as p
from isotoken.kernels.cpu.packing import padded_inputs
from isotoken.kernels.cpu.twins import operand

from .linears import PAIR_NAMES, PAIRS, Case, activations, make_case
from .steps import ISAS, aligned, run, team

SHAPES = [  # rows, outputs, inputs
    (1, 32, 32),
    (1, 300, 100),  # four panels at once, and some more
    (2, 96, 64),
    (3, 70, 96),
    (4, 200, 33),
    (5, 64, 160),
    (11, 65, 256),
    (12, 1, 1),
    (33, 130, 96),
    (70, 64, 320),
]
TOLERANCE = 2e-5  # of outputs about 1, from sums in float32


def both(isa: str, case: Case, num_rows: int, num_threads: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return what C++ and twin leave in the whole memory of the outputs, which begins alike."""
    results = []
    begun = case.out.copy()
    for which in (isa, "twin"):
        case.out[:] = begun
        run(which, case.op, p.Step(num_tokens=num_rows), num_threads)
        results.append(case.out.astype(np.float32))
    return results[0], results[1]


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_NAMES)
@pytest.mark.parametrize("isa", ISAS)
def test_every_epilogue_is_what_its_twin_says(isa: str, pair: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for index, shape in enumerate(SHAPES):
        for epilogue in (p.EPI_STORE, p.EPI_ADD, p.EPI_GATE):
            group = 64 if index % 3 == 0 else 32
            factor = 0.5 if epilogue == p.EPI_ADD else 1.0
            case = make_case(rng, pair, shape, epilogue=epilogue, group=group, bias=index % 2 == 0, factor=factor)
            ours, theirs = both(isa, case, shape[0])
            np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE, err_msg=f"{shape} {epilogue}")


@pytest.mark.parametrize("isa", ISAS)
def test_sums_of_integers_are_the_twin_s_bits(isa: str) -> None:
    rng = np.random.default_rng(2)
    for shape in SHAPES:
        case = make_case(rng, (p.FORM_I8, p.FORM_I8), shape, bias=True, factor=0.5)
        ours, theirs = both(isa, case, shape[0])
        np.testing.assert_array_equal(ours, theirs, err_msg=str(shape))


@pytest.mark.parametrize("isa", ISAS)
def test_extreme_integers_do_not_overflow(isa: str) -> None:
    """Products of the largest of both signs, of which some instructions cut off the sum of two."""
    num_rows, outputs, inputs = 6, 32, 512
    case = make_case(np.random.default_rng(0), (p.FORM_I8, p.FORM_I8), (num_rows, outputs, inputs))
    x = np.full((num_rows, inputs), 1.0, np.float32)
    x[1::2] = -1.0
    case.op.input = extremes = activations(p.FORM_I8, x, 32)
    ours, theirs = both(isa, case, num_rows)
    np.testing.assert_array_equal(ours, theirs)
    assert extremes.kept


@pytest.mark.parametrize("activation", [p.ACT_SILU, p.ACT_GELU, p.ACT_GELU_TANH, p.ACT_RELU])
@pytest.mark.parametrize("isa", ISAS)
def test_activations(isa: str, activation: int) -> None:
    """Gates from -100 to 100 for what is 1: all from the bias."""
    case = make_case(
        np.random.default_rng(3),
        (p.FORM_F32, p.FORM_F32),
        (2, 64 * 32, 32),
        epilogue=p.EPI_GATE,
        activation=activation,
        bias=True,
    )
    bias = case.op.kept["bias"].reshape(-1, 2, 16)
    bias[:, 0] = np.concatenate([np.linspace(-100, 100, 512), np.linspace(-6, 6, 512)]).reshape(-1, 16)
    bias[:, 1] = 1
    case.op.input = nothing = activations(p.FORM_F32, np.zeros((2, 32), np.float32), 32)
    ours, theirs = both(isa, case, 2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=3e-7)
    assert nothing.kept


@pytest.mark.parametrize("isa", ISAS)
def test_a_cap_bends_the_outputs(isa: str) -> None:
    case = make_case(np.random.default_rng(4), (p.FORM_BF16, p.FORM_BF16), (7, 70, 64), cap=0.7, factor=2.0)
    ours, theirs = both(isa, case, 7)
    assert np.abs(case.result()).max() <= 0.7
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("epilogue", [p.EPI_STORE, p.EPI_GATE])
@pytest.mark.parametrize("isa", ISAS)
def test_outputs_in_bfloat16_are_rounded_to_the_nearest(isa: str, epilogue: int) -> None:
    case = make_case(
        np.random.default_rng(5), (p.FORM_BF16, p.FORM_BF16), (9, 130, 64), epilogue=epilogue, out_form=p.FORM_BF16
    )
    ours, theirs = both(isa, case, 9)
    np.testing.assert_allclose(ours, theirs, rtol=2**-7, atol=TOLERANCE)  # at a tie, one may round the other way
    assert np.mean(ours == theirs) > 0.98


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_NAMES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_s_bits_depend_on_nothing_else(isa: str, pair: tuple[int, int]) -> None:
    """Not on how many rows there are, which one it is, nor on the number of threads."""
    rng = np.random.default_rng(6)
    outputs, inputs, most = 200, 288, 40
    case = make_case(rng, pair, (1, outputs, inputs))
    x = rng.standard_normal((most, inputs), np.float32)
    alone = np.empty((most, outputs), np.float32)
    for row in range(most):
        alone[row] = outputs_of(isa, case, pair, x[row : row + 1], num_threads=1)[0]
    for num_rows in (2, 3, 4, 5, 7, 11, 12, 23, most):
        for num_threads in (1, 2, 3):
            first = int(rng.integers(most - num_rows + 1))
            together = outputs_of(isa, case, pair, x[first : first + num_rows], num_threads)
            np.testing.assert_array_equal(
                together, alone[first : first + num_rows], err_msg=f"{num_rows} rows, {num_threads} threads"
            )


def outputs_of(isa: str, case: Case, pair: tuple[int, int], x: np.ndarray, num_threads: int) -> np.ndarray:
    out = aligned((len(x), case.out.shape[1]), np.float32, 0)
    op = p.Linear(
        input=activations(pair[1], x, 32),
        weights=case.op.weights,
        out=out,
        ld_out=out.shape[1],
        num_outputs=case.op.num_outputs,
        factor=1.0,
    )
    run(isa, op, p.Step(num_tokens=len(x)), num_threads)
    return out[:, : op.num_outputs]


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_NAMES)
@pytest.mark.parametrize("isa", ISAS)
def test_many_rows_in_several_blocks(isa: str, pair: tuple[int, int]) -> None:
    """So many activations that they are cut into blocks, of which the last may be short."""
    case = make_case(np.random.default_rng(7), pair, (450, 64, 1024))
    ours, theirs = both(isa, case, 450, num_threads=3)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_NAMES)
@pytest.mark.parametrize("isa", ISAS)
def test_the_bits_of_many_rows_are_those_of_each_alone(isa: str, pair: tuple[int, int]) -> None:
    """So many rows that weights pass through them in parts, the last tile of rows overlapping the one before."""
    rng = np.random.default_rng(11)
    num_rows, outputs, inputs = 147, 70, 1088
    case = make_case(rng, pair, (1, outputs, inputs))
    x = rng.standard_normal((num_rows, inputs), np.float32)
    together = outputs_of(isa, case, pair, x, num_threads=2)
    for row in (0, 15, 16, 63, 130, 131, 143, 146):
        alone = outputs_of(isa, case, pair, x[row : row + 1], num_threads=1)
        np.testing.assert_array_equal(together[row], alone[0], err_msg=f"row {row}")


@pytest.mark.parametrize("rows", [p.ROWS_LOGITS, p.ROWS_CHOSEN, p.ROWS_EXPERT, p.ROWS_ROUTED])
@pytest.mark.parametrize("isa", ISAS)
def test_only_the_wanted_rows_are_written(isa: str, rows: int) -> None:
    starts = np.array([0, 2, 7, 12], np.int32)
    routing = p.Routing(num_experts=3, top_k=3, starts=starts)
    case = make_case(
        np.random.default_rng(8), (p.FORM_I4_A8, p.FORM_I8_SUMMED), (16, 40, 64), head=p.Head(rows=rows, expert=1)
    )
    case.op.head.routing = p.ctypes.addressof(routing)
    before = case.out.copy()
    step = p.Step(num_tokens=4, num_logits=3)
    run(isa, case.op, step)
    after = case.out.copy()
    case.out[:] = before
    run("twin", case.op, step)
    np.testing.assert_allclose(after, case.out, rtol=TOLERANCE, atol=TOLERANCE)
    changed = np.flatnonzero((after != before).any(axis=1))
    expected = {p.ROWS_EXPERT: range(2, 7), p.ROWS_ROUTED: range(12)}.get(rows, range(3))
    assert changed.tolist() == list(expected)


def test_a_wrong_weight_is_seen() -> None:
    """The comparison itself: one weight's lowest bit makes it fail."""
    case = make_case(np.random.default_rng(9), (p.FORM_I8, p.FORM_I8), (5, 64, 64))
    step = p.Step(num_tokens=5)
    run("twin", case.op, step)
    theirs = case.out.copy()
    values = np.frombuffer((p.ctypes.c_uint8 * 64).from_address(case.op.weights.values), np.uint8)
    values[5] ^= 1
    team(2).prepare([case.op])(step)
    assert not np.array_equal(case.out, theirs)


def test_rows_may_lie_far_apart() -> None:
    """Strides that are no multiple of a cache line, for activations and outputs."""
    rng = np.random.default_rng(10)
    case = make_case(rng, (p.FORM_BF16, p.FORM_BF16), (6, 50, 96))
    wide = aligned((6, 131), np.uint16, 0xFFFF)
    size = padded_inputs(96)
    operand = case.op.kept["input"]
    wide[:, :size] = operand.kept["values"][:, :size].view(np.uint16)
    expected, _ = both("plain", case, 6)
    case.op.input.values, case.op.input.ld = wide.ctypes.data, 131
    case.out[:] = 7
    run("plain", case.op, p.Step(num_tokens=6))
    np.testing.assert_array_equal(case.out, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_float32_keeps_subnormal_numbers(isa: str) -> None:
    """Those of AMX are flushed to zero, for the sake of the same bits: of bfloat16 alone."""
    case = make_case(np.random.default_rng(3), (p.FORM_F32, p.FORM_F32), (2, 32, 64), factor=1e-40)
    ours, theirs = (each[:, :32] for each in both(isa, case, 2))
    assert 0 < np.abs(theirs).max() < np.finfo(np.float32).tiny
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-44)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pair", [(p.FORM_I8, p.FORM_I8), (p.FORM_I4_A8, p.FORM_I8_SUMMED)])
def test_a_row_that_is_not_a_number_gives_none_and_leaves_others_alone(isa: str, pair: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    case = make_case(rng, pair, (20, 40, 96))
    before = both(isa, case, 20)[0]
    x = rng.standard_normal((20, 96), np.float32)
    x[7, 50] = np.nan
    scales = case.op.kept["input"].kept["scales"]
    scales[7] = operand.quantize_rows(x)[1][7]
    after = both(isa, case, 20)[0]
    assert np.isnan(after[7, :40]).all()
    np.testing.assert_array_equal(np.delete(after, 7, 0), np.delete(before, 7, 0))
