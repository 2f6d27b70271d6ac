"""Matrices that are integers in the checkpoint (GPTQ, AWQ), brought into groups that the kernels read, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.checkpoint import Checkpoint
from ...core.packed_weights import QuantizedGrid, QuantizedMatrix
from ...kernels.cpu import program as kernels
from .memory import Array
from .precision import GROUP


@dataclass(frozen=True, slots=True)
class Integers:
    """The sources of one packed matrix: integers [rows, inputs] and float16 scales [rows, groups] of each."""

    form: int
    values: list[NDArray[np.int8]]
    scales: list[Array]


class Foreseen(NamedTuple):
    """What `read_integers` may come to, told before a matrix is read."""

    forms: tuple[int, ...]  # of integers: none where it has to be unpacked to floats
    maybe_floats: bool  # only the numbers tell whether there is a form for them
    why_floats: str  # "" where forms are


def foresee(checkpoint: Checkpoint, names: Sequence[str]) -> Foreseen:
    """Tell in which forms the integers of these tensors may be read. Reads their scales and zero points at most."""
    grids = [checkpoint.grid(name) for name in names]
    bits = []
    for grid in grids:
        if grid is None:
            return Foreseen((), True, "their groups differ in size")
        if why := _misfit(grid, checkpoint.shape(names[0])[1]):
            return Foreseen((), True, why)
        bits.append(grid.bits)
    if all(number == 4 for number in bits):
        return Foreseen((kernels.FORM_I4_GROUPS,), False, "")
    return Foreseen((kernels.FORM_I4_GROUPS, kernels.FORM_I8_GROUPS), 0 in bits, "")


def read_integers(checkpoint: Checkpoint, names: Sequence[str]) -> Integers | None:
    """Return tensors as the integers that they are stored as. None where the kernels have no form that equals them."""
    if checkpoint.packing is None or not all(map(checkpoint.is_packed, names)):
        return None
    found: list[QuantizedMatrix] = []
    for name in names:
        matrix = checkpoint.quantized(name)
        if matrix is None or _misfit(matrix, matrix.values.shape[1]):
            return None
        found.append(matrix)
    form = kernels.FORM_I4_GROUPS if all(matrix.bits == 4 for matrix in found) else kernels.FORM_I8_GROUPS
    return Integers(form, [matrix.values for matrix in found], [_in_groups(matrix) for matrix in found])


def _misfit(matrix: QuantizedMatrix | QuantizedGrid, num_inputs: int) -> str:
    """Say why the kernels have no form for it: inputs in order, runs that groups divide, scales that float16 holds."""
    if matrix.order is not None:
        return "their inputs are reordered (desc_act)"
    if matrix.group_size % GROUP and matrix.group_size < num_inputs:
        return f"their groups of {matrix.group_size} inputs are not a multiple of {GROUP}"
    if matrix.scales.dtype == np.float16:
        return ""
    with np.errstate(over="ignore"):
        narrow = matrix.scales.astype(np.float16)
    is_held = (narrow == matrix.scales.astype(np.float32)).all()
    return "" if is_held else f"their {matrix.scales.dtype.name} scales are beyond float16"


def _in_groups(matrix: QuantizedMatrix) -> Array:
    """Give each group of inputs the scale of the run that it is in."""
    num_groups = -(-matrix.values.shape[1] // GROUP)
    run_of = np.arange(num_groups) * GROUP // matrix.group_size
    return matrix.scales[:, run_of].astype(np.float16)
