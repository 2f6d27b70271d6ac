"""What of a model's weights is packed, and where each piece lies, from the description of the model alone."""

from __future__ import annotations

import hashlib

from ...core.checkpoint import Checkpoint
from ...kernels.cpu.packing import packed_sizes
from .matrices import matrices, vectors
from .memory import Layout
from .precision import Precision

LAYOUT_VERSION = 1
"""Of packed weights: to be raised whenever what kernels/cpu packs, or its order here, changes."""


class Plan:
    """What is packed and where it lies, from the description of a model alone."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision) -> None:
        spec = checkpoint.spec
        self.matrices = {matrix.name: matrix for matrix in matrices(spec, precision)}
        self.vectors = {vector.name: vector for vector in vectors(spec, list(checkpoint.names()))}
        self.layout = Layout()
        for matrix in self.matrices.values():
            for part, num_bytes in zip(
                ("values", "scales", "sums"),
                packed_sizes(matrix.form, matrix.packed_outputs, matrix.inputs, matrix.group),
                strict=True,
            ):
                if num_bytes:
                    self.layout.add(f"{matrix.name}/{part}", num_bytes)
            if matrix.bias:
                self.layout.add(f"{matrix.name}/bias", 4 * matrix.packed_outputs)
        for vector in self.vectors.values():
            self.layout.add(vector.name, 4 * vector.size)

    @property
    def num_bytes(self) -> int:
        """Memory for all of it."""
        return self.layout.num_bytes

    @property
    def digest(self) -> str:
        """Says in which forms and places the pieces lie: two equal digests can use the same memory."""
        text = f"{LAYOUT_VERSION} {list(self.matrices.values())} {list(self.vectors.values())} {self.layout.num_bytes}"
        return hashlib.sha256(text.encode()).hexdigest()
