"""What of a model's weights is packed, and where each piece lies, from the description of the model alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from ...core.checkpoint import Checkpoint
from ...kernels.cpu.packing import packed_sizes
from .integers import Foreseen, foresee
from .matrices import Matrix, matrices, vectors
from .memory import Layout
from .precision import FLOATS, Precision, group_of

LAYOUT_VERSION = 2
"""To be raised whenever what kernels/cpu packs, or its order here, changes: test_layout.py sees that."""

log = logging.getLogger("isotoken.native")

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
        """The most memory that may be used: of integers in the checkpoint, in the largest form they may come to."""
        foreseen = {name: _foresee(checkpoint, matrix) for name, matrix in self.matrices.items()}
        for name, matrix in self.matrices.items():
            found = foreseen[name]
            self._place(matrix, (*found.forms, *((matrix.form,) if found.maybe_floats else ())))
            if matrix.bias:
                self.layout.add(f"{matrix.name}/bias", 4 * matrix.packed_outputs)
        for vector in self.vectors.values():
            self.layout.add(vector.name, 4 * vector.size)
        _tell(list(foreseen.values()), precision.dtype)

    def _place(self, matrix: Matrix, forms: Sequence[int]) -> None:
        """Take room for a matrix in any of these forms. What is never written takes no memory."""
        sizes = [part_sizes(matrix, form) for form in forms]
        self.num_bytes += max(map(sum, sizes))
        for part, num_bytes in zip(PARTS, map(max, zip(*sizes, strict=True)), strict=True):
            if num_bytes:
                self.layout.add(f"{matrix.name}/{part}", num_bytes)

    @property
    def digest(self) -> str:
        """Says in which forms and places the pieces lie: two equal digests can use the same memory."""
        text = f"{LAYOUT_VERSION} {list(self.matrices.values())} {list(self.vectors.values())} {self.layout.num_bytes}"
        return hashlib.sha256(text.encode()).hexdigest()


def _foresee(checkpoint: Checkpoint, matrix: Matrix) -> Foreseen:
    """In which forms a matrix may be kept. Without packed numbers in the checkpoint there is one alone."""
    is_packed = checkpoint.packing is not None and all(map(checkpoint.is_packed, matrix.sources))
    if not is_packed or matrix.form not in FLOATS:
        return Foreseen((), True, "")
    return foresee(checkpoint, matrix.sources)


def _tell(foreseen: Sequence[Foreseen], dtype: str) -> None:
    """Say which matrices of a packed checkpoint do not stay packed, and so need more memory than their files."""
    reasons = [found.why_floats for found in foreseen if found.why_floats]
    if reasons:
        log.warning(
            "backend native: %d of the packed matrices are unpacked to %s, which takes more memory and time: %s",
            len(reasons),
            dtype,
            "; ".join(dict.fromkeys(reasons)),
        )
