"""Linear layers of every form for the tests: made with the twins, run on any instruction set and team."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from isotoken.kernels.cpu import program as p
from isotoken.kernels.cpu.packing import packed_sizes, padded_inputs
from isotoken.kernels.cpu.twins import operand, pack

from .steps import aligned

# Weights' form: the activations' forms that it takes.
PAIRS = [
    (p.FORM_F32, p.FORM_F32),
    (p.FORM_BF16, p.FORM_BF16),
    (p.FORM_I8, p.FORM_I8),
    (p.FORM_I4_A8, p.FORM_I8_SUMMED),
    (p.FORM_I8_GROUPS, p.FORM_BF16),
    (p.FORM_I8_GROUPS, p.FORM_F32),
    (p.FORM_I4_GROUPS, p.FORM_BF16),
    (p.FORM_I4_GROUPS, p.FORM_F32),
]
NAMES = {
    p.FORM_F32: "float32",
    p.FORM_BF16: "bfloat16",
    p.FORM_I8: "int8",
    p.FORM_I8_SUMMED: "int8-summed",
    p.FORM_I4_A8: "int4-a8",
    p.FORM_I8_GROUPS: "int8-groups",
    p.FORM_I4_GROUPS: "int4-groups",
}
PAIR_NAMES = [f"{NAMES[weights]}x{NAMES[activations]}" for weights, activations in PAIRS]
DTYPES: dict[int, Any] = {p.FORM_F32: np.float32, p.FORM_BF16: ml_dtypes.bfloat16}


def memory_for(form: int, outputs: int, inputs: int, group: int) -> tuple[Any, Any, Any]:
    """Return memory full of garbage for packed weights: values, scales, sums."""
    values, scales, sums = (aligned((size,), np.uint8) for size in packed_sizes(form, outputs, inputs, group))
    return values, scales, sums.view(np.int32)


def packed(form: int, matrix: np.ndarray, group: int) -> p.Weights:
    """Return weights packed by the twin."""
    memory = memory_for(form, *matrix.shape, group)
    pack.pack(form, matrix, group, *memory)
    values, scales, sums = memory
    outputs, inputs = matrix.shape
    return p.Weights(values=values, scales=scales, sums=sums, form=form, outputs=outputs, inputs=inputs, group=group)


def activations(form: int, x: np.ndarray, group: int) -> p.Operand:
    """Return rows x [M, K] in a form, their ends filled up with zeros."""
    size, ld = padded_inputs(x.shape[1]), padded_inputs(x.shape[1]) + 32
    dtype = {p.FORM_I8: np.uint8, p.FORM_I8_SUMMED: np.int8}.get(form) or DTYPES[form]
    made = p.Operand(
        values=aligned((len(x), ld), dtype),
        scales=aligned((len(x),), np.float32),
        sums=aligned((len(x), -(-size // group)), np.int32),
        form=form,
        ld=ld,
        group=group,
    )
    operand.write(made, range(len(x)), x)
    return made


@dataclass
class Case:
    """A layer, and where it writes."""

    op: p.Linear
    out: np.ndarray

    def result(self) -> np.ndarray:
        """Return the outputs [M, num_outputs] as float32."""
        return self.out[:, : self.op.num_outputs].astype(np.float32)


def make_case(
    rng: np.random.Generator,
    pair: tuple[int, int],
    shape: tuple[int, int, int],
    *,
    group: int = 32,
    epilogue: int = p.EPI_STORE,
    out_form: int = p.FORM_F32,
    bias: bool = False,
    **fields: Any,
) -> Case:
    """Return a layer [M, N, K] of random weights, whose outputs are about 1."""
    num_rows, outputs, inputs = shape
    x = rng.standard_normal((num_rows, inputs), np.float32)
    matrix = rng.standard_normal((outputs, inputs), np.float32) / np.float32(np.sqrt(inputs))
    panels = -(-outputs // p.PANEL)
    num_outputs = panels * p.PANEL // 2 - 3 if epilogue == p.EPI_GATE else outputs
    out = aligned((num_rows, padded_inputs(num_outputs) + 16), DTYPES[out_form], 7)
    fields = {"factor": 1.0, **fields}
    if bias:
        fields["bias"] = rng.standard_normal(panels * p.PANEL, np.float32)
    op = p.Linear(
        input=activations(pair[1], x, group),
        weights=packed(pair[0], matrix, group),
        out=out,
        out_form=out_form,
        ld_out=out.shape[1],
        num_outputs=num_outputs,
        epilogue=epilogue,
        **fields,
    )
    return Case(op, out)
