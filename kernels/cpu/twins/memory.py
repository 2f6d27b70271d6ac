"""Memory that C reads and writes, as numpy views: what every twin reaches its operands through."""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import program as p

DTYPES: dict[int, Any] = {
    p.FORM_F32: np.float32,
    p.FORM_BF16: ml_dtypes.bfloat16,
    p.FORM_F16: np.float16,
    p.FORM_I8: np.uint8,  # of activations: q + 128
    p.FORM_I8_SUMMED: np.int8,
}


def array(address: int | None, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return a writable view of an array that lies at an address in one piece."""
    size = prod(shape) * np.dtype(dtype).itemsize
    if not size:
        return np.empty(shape, dtype)
    if address is None:
        raise ValueError("no memory where an operation reads or writes")
    memory: Any = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


def rows(address: int | None, num_rows: int, ld: int, size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return a writable view [num_rows, size] of rows that lie ld elements apart."""
    if not num_rows * size:
        return np.empty((num_rows, size), dtype)
    item = np.dtype(dtype).itemsize
    whole = array(address, ((num_rows - 1) * ld + size,), dtype)
    return np.lib.stride_tricks.as_strided(whole, (num_rows, size), (ld * item, item))


def row_range(head: p.Head, step: p.Step) -> range:
    """Return the rows of activations that an operation handles."""
    if head.rows == p.ROWS_TOKENS:
        return range(step.num_tokens)
    if head.rows in (p.ROWS_LOGITS, p.ROWS_CHOSEN):
        return range(step.num_logits)
    routing = p.Routing.from_address(head.routing or 0)
    starts = array(routing.starts, (routing.num_experts + 1,), np.int32)
    if head.rows == p.ROWS_ROUTED:
        return range(int(starts[-1]))
    return range(int(starts[head.expert]), int(starts[head.expert + 1]))


def operand_rows(operand: p.Operand, wanted: range, size: int) -> NDArray[Any]:
    """Return a view of the wanted rows of activations [len(wanted), size], in the form they have."""
    return rows(operand.values, wanted.stop, operand.ld, size, DTYPES[operand.form])[wanted.start :]
