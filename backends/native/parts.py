"""What the operations of a program point to, and the operations that occur again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...core.decoder_spec import DecoderSpec
from ...kernels.cpu import program as kernels
from ...kernels.cpu.program import Head, Operation
from .activations import Activations
from .cache import Caches
from .precision import Precision
from .rotations import Rotations
from .weights import PackedWeights

ACTIVATIONS = {
    "silu": kernels.ACT_SILU,
    "gelu": kernels.ACT_GELU,
    "gelu_tanh": kernels.ACT_GELU_TANH,
    "relu": kernels.ACT_RELU,
}
F32 = kernels.FORM_F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A model's memory, by the names of matrices (matrices.py) and of buffers (activations.py)."""

    spec: DecoderSpec
    precision: Precision
    weights: PackedWeights
    activations: Activations
    caches: Caches
    rotations: Rotations
    logits: int  # address of float32 [max_num_logits, V]

    @property
    def rounds_operands(self) -> bool:
        """Whether a result must be rounded before a matrix can read it."""
        return self.precision.rounds_operands

    def norm(self, x: str, weight: str | None, out: str, *, head: Head | None = None) -> Operation:
        """Norm buffer x into buffer `out`, in its form. Without a weight, or where the model has none: change form."""
        return kernels.Norm(
            head=head,
            x=self.activations.address(x),
            weight=None if weight is None else self.weights.vector(weight),
            out=self.activations.operand(out),
            size=self.activations.size(x),
            ld=self.activations.ld(x),
            eps=self.spec.norm_eps,
        )

    def linear(self, x: str, matrix: str, out: str, *, head: Head | None = None, **changes: Any) -> Operation:
        """Multiply buffer x with a matrix into buffer `out`."""
        settings = {"epilogue": kernels.EPI_STORE, "factor": 1.0} | changes
        return kernels.Linear(
            head=head,
            input=self.activations.operand(x),
            weights=self.weights.weights(matrix),
            bias=self.weights.bias(matrix),
            out=self.activations.address(out),
            out_form=self.activations.form(out),
            ld_out=self.activations.ld(out),
            num_outputs=self.weights.num_outputs(matrix),
            **settings,
        )

    def gate(self, x: str, matrix: str, out: str, *, head: Head | None = None) -> Operation:
        """Multiply with gate_proj and up_proj at once: out = activation(gate) * up."""
        activation = ACTIVATIONS[self.spec.activation]
        return self.linear(x, matrix, out, head=head, epilogue=kernels.EPI_GATE, activation=activation)


@dataclass(frozen=True, slots=True)
class Residual:
    """The stream that every block adds to: a buffer, and which of its rows."""

    parts: Parts
    x: str
    rows: int

    def project(self, operand: str, matrix: str, norm: str) -> Iterator[Operation]:
        """Add operand @ matrix, normed where the model has a norm there."""
        parts, head = self.parts, Head(rows=self.rows)
        if parts.weights.vector(norm) is not None:
            yield parts.linear(operand, matrix, "y", head=head)
            yield self.add("y", norm)
            return
        yield parts.linear(
            operand, matrix, self.x, head=head, epilogue=kernels.EPI_ADD, factor=parts.spec.residual_scale
        )

    def add(self, y: str, norm: str) -> Operation:
        """Add buffer y, normed where the model has a norm there."""
        parts = self.parts
        return kernels.AddNorm(
            head=Head(rows=self.rows),
            x=parts.activations.address(self.x),
            y=parts.activations.address(y),
            weight=parts.weights.vector(norm),
            size=parts.spec.hidden_size,
            ld_x=parts.activations.ld(self.x),
            ld_y=parts.activations.ld(y),
            eps=parts.spec.norm_eps,
            factor=parts.spec.residual_scale,
        )
