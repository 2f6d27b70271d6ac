"""Packed weights in memory: where each piece lies, and how they get there, from a checkpoint or from the disk."""

from __future__ import annotations

import numpy as np

from ...core.checkpoint import Checkpoint
from ...kernels.cpu import program as kernels
from ..host_memory import release_pages
from .executor import Executor
from .integers import Integers, read_integers
from .matrices import PANEL, Matrix
from .memory import Arena, Array
from .pack_cache import PackCache
from .precision import FLOATS, STORED, group_of
from .weights_plan import PARTS, Plan, part_sizes

PIECE_BYTES = 8 << 20  # of a matrix in float32, arranged at a time


class PackedWeights:
    """The weights of a model as the kernels read them, and the embedding table as it is stored."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan) -> None:
        self._plan = plan
        self._arena = Arena(plan.layout.num_bytes)
        self._forms = {name: matrix.form for name, matrix in plan.matrices.items()}
        self.embeddings = np.require(checkpoint.tensor("embed_tokens"), requirements=["C", "A"])  # a view of the file
        self.embeddings_form = STORED[self.embeddings.dtype.name]

    @property
    def num_bytes(self) -> int:
        """Memory in use, the embedding table included."""
        plan = self._plan
        matrices = sum(sum(part_sizes(matrix, self._forms[name])) for name, matrix in plan.matrices.items())
        vectors = sum(4 * vector.size for vector in plan.vectors.values())
        return matrices + vectors + self.embeddings.nbytes

    def fill(self, checkpoint: Checkpoint, executor: Executor, cache: PackCache | None) -> None:
        """Read everything from the cache where it is there, else pack it and keep it."""
        memory = self._arena.bytes
        if cache is not None and cache.load(memory):
            self._tell_all_read(checkpoint)
            return
        for matrix in self._plan.matrices.values():
            self._pack(checkpoint, executor, matrix)
        offset = np.float32(checkpoint.spec.norm_offset)
        for vector in self._plan.vectors.values():
            self._floats(vector.name)[:] = checkpoint.tensor(vector.name).astype(np.float32) + offset
        if cache is not None:
            cache.save(memory)

    def weights(self, name: str) -> kernels.Weights:
        """Describe a matrix to a Linear."""
        matrix = self._plan.matrices[name]
        return kernels.Weights(
            values=self._address(f"{name}/values"),
            scales=self._address(f"{name}/scales"),
            sums=self._address(f"{name}/sums"),
            form=self._forms[name],
            outputs=matrix.packed_outputs,
            inputs=matrix.inputs,
            group=group_of(self._forms[name]),
        )

    def num_outputs(self, name: str) -> int:
        """How many outputs of a matrix are real, of a gated pair once."""
        return self._plan.matrices[name].outputs

    def bias(self, name: str) -> int | None:
        """Where a matrix' bias lies, if it has one."""
        return self._address(f"{name}/bias")

    def vector(self, name: str) -> int | None:
        """Where a norm's weight lies, if the model has a norm in that place."""
        return self._address(name)

    def close(self) -> None:
        """Give the memory back."""
        self._arena.close()
        self.embeddings = np.empty((0, 0), np.float32)

    def _address(self, place: str) -> int | None:
        return self._arena.address + self._plan.layout.offset(place) if place in self._plan.layout else None

    def _floats(self, place: str) -> Array:
        layout = self._plan.layout
        return self._arena.view(layout.offset(place), (layout.size(place) // 4,), np.float32)

    def _pack(self, checkpoint: Checkpoint, executor: Executor, matrix: Matrix) -> None:
        """Pack a matrix by pieces of whole panels: memory never holds a second copy of a large one."""
        integers = read_integers(checkpoint, matrix.sources) if matrix.form in FLOATS else None
        if integers is not None:
            self._pack_integers(executor, matrix, integers)
        else:
            self._pack_floats(executor, matrix, [checkpoint.tensor(name) for name in matrix.sources])
        if matrix.bias:
            biases = [checkpoint.tensor(f"{name}.bias") for name in matrix.sources]
            self._floats(f"{matrix.name}/bias")[:] = matrix.arrange(biases, 0, matrix.packed_outputs)

    def _pack_floats(self, executor: Executor, matrix: Matrix, tensors: list[Array]) -> None:
        step = max(PIECE_BYTES // (4 * matrix.inputs) // PANEL, 1) * PANEL
        for start in range(0, matrix.packed_outputs, step):
            stop = min(start + step, matrix.packed_outputs)
            piece = matrix.arrange(tensors, start, stop)
            executor.pack(matrix.form, piece, group_of(matrix.form), *self._parts(matrix, start, stop))
            if len(tensors) == 1:
                release_pages(tensors[0][start:stop])
        for tensor in tensors:
            release_pages(tensor)

    def _pack_integers(self, executor: Executor, matrix: Matrix, integers: Integers) -> None:
        self._forms[matrix.name] = integers.form
        values, scales = (matrix.arrange(part, 0, matrix.packed_outputs) for part in (integers.values, integers.scales))
        parts = self._parts(matrix, 0, matrix.packed_outputs)
        executor.pack_quantised(integers.form, values, scales, group_of(integers.form), *parts)

    def _parts(self, matrix: Matrix, start: int, stop: int) -> tuple[Array, Array | None, Array | None]:
        """The memory of each part of rows [start, stop) of a packed matrix, None where its form has no such."""
        sizes = part_sizes(matrix, self._forms[matrix.name])
        values, scales, sums = (
            self._rows(f"{matrix.name}/{part}", num_bytes // matrix.packed_outputs, start, stop)
            for part, num_bytes in zip(PARTS, sizes, strict=True)
        )
        assert values is not None
        return values, scales, None if sums is None else sums.view(np.int32)

    def _rows(self, place: str, row_bytes: int, start: int, stop: int) -> Array | None:
        if not row_bytes:
            return None
        offset = self._plan.layout.offset(place) + start * row_bytes
        return self._arena.view(offset, ((stop - start) * row_bytes,), np.uint8)

    def _tell_all_read(self, checkpoint: Checkpoint) -> None:
        """Count every tensor as read, for those who watch the progress."""
        for name in checkpoint.names():
            checkpoint.tensor(name)
