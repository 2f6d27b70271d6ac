"""Embed: x = scale * table[input_ids], float32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from .memory import array, rows
from .operand import filled_up
from .selection import token_array

TABLE_DTYPES = {0: np.dtype(np.float32), 1: np.dtype(ml_dtypes.bfloat16), 2: np.dtype(np.float16)}  # by Form


def embed(op: Any, step: Any) -> None:
    """Look up each token's row, widen and scale it, and fill it up with zeros."""
    ids = token_array(step.input_ids, step)
    if not len(ids):
        return
    table = array(op.table, (int(ids.max()) + 1, op.size), TABLE_DTYPES[op.form])
    x = rows(op.x, len(ids), op.ld, filled_up(op.size), np.float32)
    x[:, : op.size] = table[ids].astype(np.float32) * np.float32(op.scale)
    x[:, op.size :] = 0
