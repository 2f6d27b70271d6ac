"""Weights: the checkpoint's tensors as initializers of the graph, in the compute dtype where they are used."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...core.checkpoint import Checkpoint
from ...core.packed_weights import QuantizedMatrix
from .options import NUMPY_DTYPES, GraphOptions
from .writer import Array, GraphWriter


class Weights:
    """Hands out tensors by their canonical name. Matrices are never copied; vectors are where they must change."""

    def __init__(self, writer: GraphWriter, checkpoint: Checkpoint, options: GraphOptions) -> None:
        self._writer = writer
        self._checkpoint = checkpoint
        self._names = frozenset(checkpoint.names())
        self._options = options
        self._cast: dict[str, ir.Value] = {}

    def __contains__(self, name: str) -> bool:
        return self._stored_name(name) in self._names

    def array(self, name: str) -> Array:
        """Return the tensor as the checkpoint holds it, a packed one as floats."""
        return self._checkpoint.tensor(name)

    def integers(self, name: str) -> QuantizedMatrix | None:
        """Return a matrix that the checkpoint holds as integers, where it does; see Checkpoint.quantized."""
        return self._checkpoint.quantized(self._stored_name(name))

    def stored(self, name: str) -> ir.Value:
        """Return an initializer that points into the checkpoint, in the dtype that the checkpoint has.

        A packed tensor is in no file as floats, so it becomes an array, in float32.
        """
        name = self._stored_name(name)
        if self._checkpoint.is_packed(name):
            return self._writer.weight(name, self.array(name))
        return self._writer.weight(name, self._checkpoint.location(name))

    def matrix(self, name: str) -> ir.Value:
        """Return the tensor in the compute dtype; a runtime folds the Cast of a constant when it loads the graph."""
        name, value = self._stored_name(name), self.stored(name)
        if value.dtype == self._options.data_type:
            return value
        if name not in self._cast:
            self._cast[name] = self._writer.op("Cast", value, name=f"{name}.cast", to=self._options.data_type)
        return self._cast[name]

    def vector(self, name: str, offset: float = 0.0) -> ir.Value | None:
        """Return a norm's weight (plus an offset, added in float32) or a bias in the compute dtype; None if absent."""
        if name not in self:
            return None
        stored, wanted = self.array(name), NUMPY_DTYPES[self._options.dtype]
        if stored.dtype == wanted and not offset:
            return self.stored(name)
        return self._writer.constant(name, (stored.astype(np.float32) + np.float32(offset)).astype(wanted))

    def _stored_name(self, name: str) -> str:
        return "embed_tokens" if name == "lm_head" and self._checkpoint.spec.tied_embeddings else name
