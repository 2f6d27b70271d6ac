"""Matrices that are integers in the checkpoint (GPTQ, AWQ), brought into groups that the kernels read, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.checkpoint import Checkpoint
from ...core.packed_weights import QuantizedMatrix
from ...kernels.cpu import program as kernels
from .memory import Array
from .precision import GROUP


@dataclass(frozen=True, slots=True)
class Integers:
    """The sources of one packed matrix: integers [rows, inputs] and float16 scales [rows, groups] of each."""

    form: int
    values: list[NDArray[np.int8]]
    scales: list[Array]


def read_integers(checkpoint: Checkpoint, names: Sequence[str]) -> Integers | None:
    """Return tensors as the integers that they are stored as. None where the kernels have no form that equals them."""
    if checkpoint.packing is None or not all(map(checkpoint.is_packed, names)):
        return None
    found: list[QuantizedMatrix] = []
    for name in names:
        matrix = checkpoint.quantized(name)
        if matrix is None or not _fits(matrix):
            return None
        found.append(matrix)
    form = kernels.FORM_I4_GROUPS if all(matrix.bits == 4 for matrix in found) else kernels.FORM_I8_GROUPS
    return Integers(form, [matrix.values for matrix in found], [_in_groups(matrix) for matrix in found])


def _fits(matrix: QuantizedMatrix) -> bool:
    """Whether inputs stand in order, in runs that groups divide, with scales that float16 holds."""
    in_runs = matrix.group_size % GROUP == 0 or matrix.group_size >= matrix.values.shape[1]
    with np.errstate(over="ignore"):
        narrow = matrix.scales.astype(np.float16)
    return matrix.order is None and in_runs and bool((narrow == matrix.scales.astype(np.float32)).all())


def _in_groups(matrix: QuantizedMatrix) -> Array:
    """Give each group of inputs the scale of the run that it is in."""
    num_groups = -(-matrix.values.shape[1] // GROUP)
    run_of = np.arange(num_groups) * GROUP // matrix.group_size
    return matrix.scales[:, run_of].astype(np.float16)
