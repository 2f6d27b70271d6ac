"""Packed weights in memory: where each piece lies, and how they get there, from a checkpoint or from the disk."""

from __future__ import annotations

import numpy as np

from ...core.checkpoint import Checkpoint
from ...kernels.cpu import program as kernels
from ..host_memory import release_pages
from .executor import Executor
from .matrices import PANEL, Matrix
from .memory import Arena, Array
from .pack_cache import PackCache
from .precision import STORED
from .weights_plan import Plan

PIECE_BYTES = 8 << 20  # of a matrix in float32, arranged at a time


class PackedWeights:
    """The weights of a model as the kernels read them, and the embedding table as it is stored."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan) -> None:
        self._plan = plan
        self._arena = Arena(plan.num_bytes)
        self.embeddings = np.require(checkpoint.tensor("embed_tokens"), requirements=["C", "A"])  # a view of the file
        self.embeddings_form = STORED[self.embeddings.dtype.name]

    @property
    def num_bytes(self) -> int:
        """Memory in use, the embedding table included."""
        return self._plan.num_bytes + self.embeddings.nbytes

    def fill(self, checkpoint: Checkpoint, executor: Executor, cache: PackCache | None) -> bool:
        """Read everything from the cache where it is there, else pack it and keep it. Returns whether it was there."""
        memory = self._arena.bytes
        if cache is not None and cache.load(memory):
            self._tell_all_read(checkpoint)
            return True
        for matrix in self._plan.matrices.values():
            self._pack(checkpoint, executor, matrix)
        offset = np.float32(checkpoint.spec.norm_offset)
        for vector in self._plan.vectors.values():
            self._floats(vector.name)[:] = checkpoint.tensor(vector.name).astype(np.float32) + offset
        if cache is not None:
            cache.save(memory)
        return False

    def weights(self, name: str) -> kernels.Weights:
        """Describe a matrix to a Linear."""
        matrix = self._plan.matrices[name]
        return kernels.Weights(
            values=self._address(f"{name}/values"),
            scales=self._address(f"{name}/scales"),
            sums=self._address(f"{name}/sums"),
            form=matrix.form,
            outputs=matrix.packed_outputs,
            inputs=matrix.inputs,
            group=matrix.group,
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
        tensors = [checkpoint.tensor(name) for name in matrix.sources]
        step = max(PIECE_BYTES // (4 * matrix.inputs) // PANEL, 1) * PANEL
        for start in range(0, matrix.packed_outputs, step):
            stop = min(start + step, matrix.packed_outputs)
            values = self._part(matrix, "values", start, stop)
            assert values is not None
            executor.pack(
                matrix.form,
                matrix.arrange(tensors, start, stop),
                matrix.group,
                values,
                self._part(matrix, "scales", start, stop),
                self._part(matrix, "sums", start, stop),
            )
            if len(tensors) == 1:
                release_pages(tensors[0][start:stop])
        for tensor in tensors:
            release_pages(tensor)
        if matrix.bias:
            biases = [checkpoint.tensor(f"{name}.bias") for name in matrix.sources]
            self._floats(f"{matrix.name}/bias")[:] = matrix.arrange(biases, 0, matrix.packed_outputs)

    def _part(self, matrix: Matrix, part: str, start: int, stop: int) -> Array | None:
        """The memory of a part of rows [start, stop) of a packed matrix, if its form has such a part."""
        layout, place = self._plan.layout, f"{matrix.name}/{part}"
        if place not in layout:
            return None
        row_bytes = layout.size(place) // matrix.packed_outputs
        memory = self._arena.view(layout.offset(place) + start * row_bytes, ((stop - start) * row_bytes,), np.uint8)
        return memory.view(np.int32) if part == "sums" else memory

    def _tell_all_read(self, checkpoint: Checkpoint) -> None:
        """Count every tensor as read, for those who watch the progress."""
        for name in checkpoint.names():
            checkpoint.tensor(name)
