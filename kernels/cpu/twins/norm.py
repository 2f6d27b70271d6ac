"""Norm and AddNorm: rows divided by their root mean square, times a weight; and what turns rows into other forms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import program as p
from . import operand
from .memory import array, row_range, rows

Float32 = NDArray[np.float32]


def normed(x: Float32, weight: int | None, eps: float) -> Float32:
    """Return x / sqrt(mean(x^2) + eps) * weight along the last axis, or x without a weight (its address)."""
    if not weight:
        return x
    wide = x.astype(np.float64)
    inverse = 1 / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + np.float64(np.float32(eps)))
    factors = array(weight, (x.shape[-1],), np.float32)
    return (wide * inverse * factors).astype(np.float32)


def norm(op: p.Norm, step: p.Step) -> None:
    """Norm rows of float32, or leave them as they are, and store them in the form of `out`."""
    wanted = row_range(op.head, step)
    if op.head.rows == p.ROWS_LOGITS:
        indices = array(step.logits_indices, (step.num_logits,), np.int32)
        x = rows(op.x, step.num_tokens, op.ld, op.size, np.float32)[indices]
    else:
        x = rows(op.x, wanted.stop, op.ld, op.size, np.float32)[wanted.start :]
    operand.write(op.out, wanted, normed(x, op.weight, op.eps))


def add_norm(op: p.AddNorm, step: p.Step) -> None:
    """Add factor * norm(y) to x."""
    wanted = row_range(op.head, step)
    x = rows(op.x, wanted.stop, op.ld_x, op.size, np.float32)[wanted.start :]
    y = rows(op.y, wanted.stop, op.ld_y, op.size, np.float32)[wanted.start :]
    x += np.float32(op.factor) * normed(y, op.weight, op.eps)
