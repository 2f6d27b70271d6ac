"""Packed weights: C++ and numpy agree in every bit, and what is packed can be read again."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from isotoken.kernels.cpu import packing, quantize
from isotoken.kernels.cpu import program as p
from isotoken.kernels.cpu.twins import pack

from .linears import NAMES, memory_for
from .steps import ISAS
from .steps import team as team_of

FORMS = list(packing.INPUTS_A_STEP)
SHAPES = [(1, 1), (32, 32), (70, 100), (33, 288)]
DTYPES = [np.float32, ml_dtypes.bfloat16, np.float16]


def matrices(shape: tuple[int, int], dtype: object) -> list[np.ndarray]:
    """Return weights as they are, and such as try the ends: zeros, tiny and huge ones, ties between two integers."""
    rng = np.random.default_rng(shape[0])
    usual = rng.standard_normal(shape)
    spread = usual * 10.0 ** rng.integers(-6, 4, shape)
    halves = np.round(usual * 4) / 2
    sparse = np.where(rng.random((shape[0], 1)) < 0.5, usual, 0)
    return [each.astype(dtype) for each in (usual, spread, halves, sparse, np.abs(usual), -np.abs(usual))]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("form", FORMS, ids=NAMES.get)
@pytest.mark.parametrize("isa", ISAS)
def test_both_pack_the_same_bits(isa: str, form: int, dtype: object) -> None:
    team = team_of(2, isa)
    for shape in SHAPES:
        for group in (32, 64):
            for matrix in matrices(shape, dtype):
                ours, theirs = (memory_for(form, *shape, group) for _ in range(2))
                team.pack(form, matrix, group, *ours)
                pack.pack(form, matrix, group, *theirs)
                for mine, other in zip(ours, theirs, strict=True):
                    np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("form", [p.FORM_I8, *packing.BITS_OF_GROUPS], ids=NAMES.get)
@pytest.mark.parametrize("isa", ISAS)
def test_integers_are_taken_as_they_are(isa: str, form: int) -> None:
    team = team_of(2, isa)
    rng = np.random.default_rng(1)
    outputs, inputs, group = 40, 96, 32
    half = 2 ** (packing.BITS_OF_GROUPS.get(form, 8) - 1)
    integers = rng.integers(-half, half, (outputs, inputs), np.int8)
    groups = () if form == p.FORM_I8 else (inputs // group,)
    scales = rng.random((outputs, *groups)).astype(np.float16).astype(np.float32)
    ours, theirs = (memory_for(form, outputs, inputs, group) for _ in range(2))
    team.pack_quantised(form, integers, scales, group, *ours)
    pack.pack_quantised(form, integers, scales, group, *theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)
    weights = p.Weights(
        values=ours[0], scales=ours[1], sums=ours[2], form=form, outputs=outputs, inputs=inputs, group=group
    )
    again, read_scales = pack.unpack(weights)
    np.testing.assert_array_equal(again[:outputs, :inputs], integers)
    np.testing.assert_array_equal(read_scales[:outputs], scales)
    assert not again[outputs:].any(), "outputs that are not there are zeros"


@pytest.mark.parametrize(("form", "bits"), [(p.FORM_I4_A8, 4), (p.FORM_I4_GROUPS, 4), (p.FORM_I8_GROUPS, 8)])
def test_rounding_is_that_of_quantize(form: int, bits: int) -> None:
    matrix = np.random.default_rng(2).standard_normal((64, 128), np.float32)
    memory = memory_for(form, 64, 128, 32)
    team_of(2, "plain").pack(form, matrix, 32, *memory)
    weights = p.Weights(values=memory[0], scales=memory[1], form=form, outputs=64, inputs=128, group=32)
    integers, scales = pack.unpack(weights)
    packed, exact = quantize.quantize(matrix, bits, 32)  # scales are rounded once the integers are chosen
    expected = quantize.dequantize(packed, exact.astype(np.float16), bits, 128)
    np.testing.assert_array_equal(integers * np.repeat(scales, 32, axis=1), expected)


def test_rows_of_a_larger_matrix_are_packed_in_place() -> None:
    whole = np.random.default_rng(3).standard_normal((50, 200)).astype(np.float32)
    part = whole[3:40, :96]
    ours, theirs = (memory_for(p.FORM_BF16, *part.shape, 0) for _ in range(2))
    team_of(2, "plain").pack(p.FORM_BF16, part, 0, *ours)
    pack.pack(p.FORM_BF16, np.ascontiguousarray(part), 0, *theirs)
    np.testing.assert_array_equal(ours[0], theirs[0])
    with pytest.raises(ValueError, match="lie apart"):
        team_of(2, "plain").pack(p.FORM_BF16, whole[:37, ::2][:, :96], 0, *ours)


def test_memory_of_another_size_is_refused() -> None:
    values, scales, sums = memory_for(p.FORM_I8, 64, 64, 0)
    with pytest.raises(ValueError, match="needed are"):
        team_of(2, "plain").pack(p.FORM_I8, np.zeros((64, 65), np.float32), 0, values, scales, sums)
    with pytest.raises(ValueError, match="multiple of 32"):
        packing.packed_sizes(p.FORM_I4_A8, 32, 32, 16)
    with pytest.raises(ValueError, match="none of weights"):
        packing.packed_sizes(p.FORM_F16, 32, 32)
