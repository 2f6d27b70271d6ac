"""Embed: x = scale * table[input_ids], float32."""

from __future__ import annotations

import numpy as np

from .. import program as p
from .memory import DTYPES, array, rows
from .operand import filled_up


def embed(op: p.Embed, step: p.Step) -> None:
    """Look up each token's row, widen and scale it, and fill it up with zeros."""
    ids = array(step.input_ids, (step.num_tokens,), np.int32)
    if not len(ids):
        return
    table = array(op.table, (int(ids.max()) + 1, op.size), DTYPES[op.form])
    x = rows(op.x, len(ids), op.ld, filled_up(op.size), np.float32)
    x[:, : op.size] = table[ids].astype(np.float32) * np.float32(op.scale)
    x[:, op.size :] = 0
