"""Activations in the forms that a Linear reads: float32, bfloat16, and int8 with a scale a row.

A row x is int8 as q = rint(x * (1 / scale)) within -127 ... 127, scale = max|x| / 127 (1 where that is as good as 0).
Where an element is not finite, q is 0 and the scale is not a number: nor is what the row is multiplied with.
FORM_I8 stores q + 128 as uint8; FORM_I8_SUMMED stores q, and for each group of inputs -8 * sum(q), which takes off the
offset of 4-bit weights stored as 0 ... 15. Rows are filled up with zeros to a multiple of 32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import program as p
from .memory import operand_rows, rows

SMALLEST_SCALE = np.finfo(np.float32).tiny

Float32 = NDArray[np.float32]


def filled_up(size: int) -> int:
    """How wide a row of `size` elements is once it is filled up to a multiple of 32."""
    return -(-size // 32) * 32


def quantize_rows(x: Float32) -> tuple[NDArray[np.int8], Float32]:
    """Return q [..., K] int8 and scales [...] of rows x [..., K]."""
    with np.errstate(invalid="ignore"):
        scales = np.abs(x).max(axis=-1, initial=0).astype(np.float32) / np.float32(127)
    finite = np.isfinite(scales)
    scales = np.where(finite & (scales < SMALLEST_SCALE), np.float32(1), scales)
    inverse = np.float32(1) / scales
    q = np.rint(np.where(finite[..., None], x, 0) * np.where(finite, inverse, 0)[..., None])
    return q.clip(-127, 127).astype(np.int8), np.where(finite, scales, np.float32(np.nan))


def write(out: p.Operand, wanted: range, x: Float32) -> None:
    """Store rows x [n, size] float32 as the wanted rows of an Operand, in its form."""
    size = x.shape[1]
    width = filled_up(size)
    values = operand_rows(out, wanted, width)
    if out.form in (p.FORM_F32, p.FORM_BF16):
        with np.errstate(invalid="ignore"):  # of what is not a number
            values[:, :size] = x
        values[:, size:] = 0
        return
    q, scales = quantize_rows(x)
    rows(out.scales, wanted.stop, 1, 1, np.float32)[wanted.start :, 0] = scales
    if out.form == p.FORM_I8:
        values[:, :size] = (q.astype(np.int16) + 128).astype(np.uint8)
        values[:, size:] = 128
        return
    values[:, :size] = q
    values[:, size:] = 0
    starts = np.arange(0, width, out.group)
    sums = rows(out.sums, wanted.stop, len(starts), len(starts), np.int32)[wanted.start :]
    sums[:] = -8 * np.add.reduceat(values.astype(np.int32), starts, axis=1)
