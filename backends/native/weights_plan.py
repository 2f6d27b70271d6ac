"""What of a model's weights is packed, and where each piece lies, from the description of the model alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ...core.checkpoint import Checkpoint
from ...kernels.cpu import program as kernels
from ...kernels.cpu.packing import packed_sizes
from .matrices import Matrix, matrices, vectors
from .memory import Layout
from .precision import Precision, group_of

LAYOUT_VERSION = 2
"""Of packed weights: to be raised whenever what kernels/cpu packs, or its order here, changes."""


INTEGERS = (kernels.FORM_I4_GROUPS, kernels.FORM_I8_GROUPS)
"""Forms of matrices that are integers in the checkpoint: which it is, and whether it is one, shows when it is read."""

PARTS = ("values", "scales", "sums")


def part_sizes(matrix: Matrix, form: int) -> tuple[int, int, int]:
    """Bytes of a packed matrix' parts in a form."""
    return packed_sizes(form, matrix.packed_outputs, matrix.inputs, group_of(form))


class Plan:
    """What is packed and where it lies, from the description of a model alone."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision) -> None:
        spec = checkpoint.spec
        self.matrices = {matrix.name: matrix for matrix in matrices(spec, precision)}
        self.vectors = {vector.name: vector for vector in vectors(spec, list(checkpoint.names()))}
        self.layout = Layout()
        self.num_bytes = 0
        """Memory that is likely to be used: of integers in the checkpoint, one byte a number."""
        for matrix in self.matrices.values():
            holds_integers = checkpoint.packing is not None and all(map(checkpoint.is_packed, matrix.sources))
            self._place(matrix, (matrix.form, *(INTEGERS if holds_integers else ())))
            if matrix.bias:
                self.layout.add(f"{matrix.name}/bias", 4 * matrix.packed_outputs)
        for vector in self.vectors.values():
            self.layout.add(vector.name, 4 * vector.size)

    def _place(self, matrix: Matrix, forms: Sequence[int]) -> None:
        """Take room for a matrix in any of these forms, likely the last. What is never written takes no memory."""
        sizes = [part_sizes(matrix, form) for form in forms]
        self.num_bytes += sum(sizes[-1])
        for part, num_bytes in zip(PARTS, map(max, zip(*sizes, strict=True)), strict=True):
            if num_bytes:
                self.layout.add(f"{matrix.name}/{part}", num_bytes)

    @property
    def digest(self) -> str:
        """Says in which forms and places the pieces lie: two equal digests can use the same memory."""
        text = f"{LAYOUT_VERSION} {list(self.matrices.values())} {list(self.vectors.values())} {self.layout.num_bytes}"
        return hashlib.sha256(text.encode()).hexdigest()
