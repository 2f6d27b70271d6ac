"""A linear layer on packed weights: every form of operands and every epilogue."""

from __future__ import annotations

from math import erf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import program as p
from ..packing import num_groups, padded_inputs
from .memory import DTYPES, array, operand_rows, row_range, rows
from .pack import unpack

Float32 = NDArray[np.float32]
HALF_PANEL = p.PANEL // 2  # gates, and as many beside them that they are for


def linear(op: p.Linear, step: p.Step) -> None:
    """Compute input @ weights.T and what the epilogue makes of it."""
    wanted = row_range(op.head, step)
    if not wanted:
        return
    values = product(op, wanted)
    if op.bias:
        values = values + array(op.bias, (values.shape[1],), np.float32)
    if op.epilogue == p.EPI_GATE:
        _store_gated(op, wanted, values)
        return
    values = np.float32(op.factor) * values[:, : op.num_outputs]
    out = rows(op.out, wanted.stop, op.ld_out, op.num_outputs, DTYPES[op.out_form])[wanted.start :]
    if op.epilogue == p.EPI_ADD:
        out += values
        return
    if op.cap:
        values = (op.cap * np.tanh(values.astype(np.float64) / op.cap)).astype(np.float32)
    out[:] = values


def product(op: p.Linear, wanted: range) -> Float32:
    """Return input @ weights.T of the wanted rows [len(wanted), whole panels], scales included."""
    matrix, scales = unpack(op.weights)
    values = operand_rows(op.input, wanted, padded_inputs(op.weights.inputs)).astype(np.float64)
    form = op.weights.form
    if form == p.FORM_I8:
        whole = ((values - 128) @ matrix.T).astype(np.float32)
        return whole * _row_scales(op, wanted) * scales
    if form == p.FORM_I4_A8:
        return _in_groups(values, matrix, scales, op.weights.group) * _row_scales(op, wanted)
    if form in (p.FORM_I8_GROUPS, p.FORM_I4_GROUPS):
        groups = num_groups(op.weights.inputs, op.weights.group)
        matrix = matrix * np.repeat(scales, op.weights.group, axis=1)[:, : matrix.shape[1]]
        assert scales.shape[1] == groups
    return (values @ matrix.T).astype(np.float32)


def activate(activation: int, x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the activation of x, in float64."""
    wide = x.astype(np.float64)
    if activation == p.ACT_RELU:
        return np.maximum(wide, 0)
    if activation == p.ACT_GELU:
        return 0.5 * wide * (1 + np.vectorize(erf, otypes=[np.float64])(wide / np.sqrt(2)))
    if activation == p.ACT_GELU_TANH:
        wide_cube = wide + 0.044715 * wide**3
        return 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * wide_cube))
    with np.errstate(over="ignore"):
        silu: NDArray[np.float64] = wide / (1 + np.exp(-wide))
    return silu


def _in_groups(values: NDArray[Any], matrix: NDArray[Any], scales: Float32, group: int) -> Float32:
    """Sum exact sums of groups in float32, one fused multiply and add a group."""
    total = np.zeros((len(values), len(matrix)), np.float32)
    for index in range(scales.shape[1]):
        inputs = slice(index * group, (index + 1) * group)
        exact = values[:, inputs] @ matrix[:, inputs].T
        total = (exact * scales[:, index] + total).astype(np.float32)
    return total


def _row_scales(op: p.Linear, wanted: range) -> Float32:
    return array(op.input.scales, (wanted.stop,), np.float32)[wanted.start :, None]


def _store_gated(op: p.Linear, wanted: range, values: Float32) -> None:
    pairs = values.reshape(len(values), -1, 2, HALF_PANEL)
    gates, ups = (pairs[:, :, half].reshape(len(values), -1)[:, : op.num_outputs] for half in (0, 1))
    filled = padded_inputs(op.num_outputs)
    out = rows(op.out, wanted.stop, op.ld_out, filled, DTYPES[op.out_form])[wanted.start :]
    out[:, : op.num_outputs] = (activate(op.activation, gates) * ups).astype(np.float32)
    out[:, op.num_outputs :] = 0
