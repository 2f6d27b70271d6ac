"""Packed weights in numpy: how a matrix comes to lie in panels, and back again."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .. import program as p
from .. import quantize
from ..packing import BITS_OF_GROUPS, INPUTS_A_STEP, STEP_BYTES, num_groups, num_panels, packed_sizes, padded_inputs
from .memory import array

Array = NDArray[Any]
FLOATS: dict[int, Any] = {p.FORM_F32: np.float32, p.FORM_BF16: ml_dtypes.bfloat16}
SHIFTS = {  # of the 4 bits of each of a step's eight inputs within the 32 bits of an output
    p.FORM_I4_A8: [8 * (k % 4) + 4 * (k // 4) for k in range(8)],
    p.FORM_I4_GROUPS: [16 * (k % 2) + 4 * (k // 2) for k in range(8)],
}


def pack(
    form: int, matrix: Array, group: int, values: Array, scales: Array | None = None, sums: Array | None = None
) -> None:
    """Pack matrix [outputs, inputs], float32, bfloat16 or float16, into memory of packed_sizes: uint8, uint8, int32.

    Forms of integers are quantised as `quantize` says, groups with float16 scales. Outputs are filled up to whole
    panels.
    """
    if form in FLOATS:
        wide = np.asarray(matrix, np.float32).astype(FLOATS[form])
        values[:] = _in_steps(form, _padded(wide)).view(np.uint8).reshape(-1)
        return
    pack_quantised(form, *quantised(form, matrix, group), group, values, scales, sums)


def quantised(form: int, matrix: Array, group: int) -> tuple[NDArray[np.int8], Array]:
    """Return integers [outputs, inputs] and float32 scales: [outputs] of FORM_I8, else [outputs, groups]."""
    if form == p.FORM_I8:
        return quantize.quantize_rows(matrix)
    bits = BITS_OF_GROUPS[form]
    packed, scales = quantize.quantize(matrix, bits, group)  # integers are chosen before scales are rounded
    flat = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1)
    integers = (flat.reshape(len(matrix), -1).astype(np.int16) - 2 ** (bits - 1)).astype(np.int8)
    return integers[:, : matrix.shape[1]], scales


def pack_quantised(
    form: int,
    integers: NDArray[np.int8],
    float_scales: Array,
    group: int,
    values: Array,
    scales: Array | None = None,
    sums: Array | None = None,
) -> None:
    """Pack integers [outputs, inputs] and their scales, [outputs] of FORM_I8, else [outputs, groups]."""
    padded = _padded(integers)
    values[:] = _in_steps(form, padded).reshape(-1)
    assert scales is not None
    if form == p.FORM_I8:
        assert sums is not None
        scales.view(np.float32)[:] = _filled(float_scales.astype(np.float32), len(padded))
        sums[:] = -128 * padded.sum(axis=1, dtype=np.int32)
        return
    filled = _filled(float_scales.astype(np.float16), len(padded))
    in_panels = filled.reshape(-1, p.PANEL, filled.shape[1]).transpose(0, 2, 1)
    scales.view(np.float16)[:] = in_panels.reshape(-1)


def unpack(weights: p.Weights) -> tuple[Array, Array]:
    """Return packed weights as float64 [outputs, inputs], filled up both, integers not yet scaled, and the scales.

    Scales are float32 [outputs] of FORM_I8, [outputs, groups] of groups, else all ones [outputs].
    """
    form, panels = weights.form, num_panels(weights.outputs)
    num_bytes, *_ = packed_sizes(form, weights.outputs, weights.inputs, weights.group)
    values = array(weights.values, (num_bytes,), np.uint8).reshape(panels, -1, p.PANEL, STEP_BYTES)
    matrix = _from_steps(form, values).astype(np.float64)
    if form == p.FORM_I8:
        return matrix, array(weights.scales, (len(matrix),), np.float32)
    if form in BITS_OF_GROUPS:
        groups = num_groups(weights.inputs, weights.group)
        scales = array(weights.scales, (panels, groups, p.PANEL), np.float16)
        return matrix, scales.transpose(0, 2, 1).reshape(-1, groups).astype(np.float32)
    return matrix, np.ones(len(matrix), np.float32)


def _padded(matrix: Array) -> Array:
    outputs, inputs = matrix.shape
    return np.pad(matrix, ((0, num_panels(outputs) * p.PANEL - outputs), (0, padded_inputs(inputs) - inputs)))


def _filled(scales: Array, outputs: int) -> Array:
    """Give outputs that are not there the scale of zeros."""
    filled = np.ones((outputs, *scales.shape[1:]), scales.dtype)
    filled[: len(scales)] = scales
    return filled


def _in_steps(form: int, matrix: Array) -> Array:
    """Turn [panels * PANEL, inputs] into [panels, steps, PANEL, values of a step]."""
    steps = matrix.reshape(-1, p.PANEL, matrix.shape[1] // INPUTS_A_STEP[form], INPUTS_A_STEP[form])
    steps = np.ascontiguousarray(steps.transpose(0, 2, 1, 3))
    if form not in SHIFTS:
        return steps.view(np.uint8) if steps.dtype == np.int8 else steps
    halves = (steps + 8).astype("<u4") << np.array(SHIFTS[form], "<u4")
    return np.bitwise_or.reduce(halves, axis=-1).view(np.uint8)


def _from_steps(form: int, values: Array) -> Array:
    """Turn [panels, steps, PANEL, 4] bytes into [panels * PANEL, inputs]."""
    if form in SHIFTS:
        halves = values.view("<u4") >> np.array(SHIFTS[form], "<u4") & 15
        steps: Array = halves.astype(np.int8) - 8
    else:
        steps = values.view(FLOATS.get(form, np.int8))
    return steps.transpose(0, 2, 1, 3).reshape(len(values) * p.PANEL, -1)
