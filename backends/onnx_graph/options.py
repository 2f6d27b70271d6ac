"""GraphOptions: which form of the graph to build, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ...core.quantization import FP8, INT4, INT8, INT8_ROWS

AttentionForm = Literal["gqa", "standard", "standard-mask", "paged"]
LinearForm = Literal["gemm", "nbits", "qdq"]

DATA_TYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
}
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
ATTENTION_FORMS = ("gqa", "standard", "standard-mask", "paged")
QUANTIZATIONS: dict[str, tuple[str | None, ...]] = {  # which of core.quantization each linear form can store
    "gemm": (None,),
    "nbits": (INT4.name, INT8.name),
    "qdq": (INT4.name, INT8_ROWS.name, FP8.name),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """What to build. Raises ValueError naming the option, its value and what is possible."""

    attention: AttentionForm = "gqa"
    linear: LinearForm | None = None  # None: gemm, or where weights are quantised nbits, or qdq for TensorRT
    dtype: str = "float32"  # compute dtype; logits are float32 whatever it is
    kv_dtype: str | None = None  # of the K/V cache; None: the compute dtype
    quantization: str | None = None  # of the weight matrices, by its name in core.quantization
    block_size: int = 32  # inputs that share a scale, in the blockwise quantisations
    accuracy_level: int = 4  # of MatMulNBits: 4 rounds activations to int8
    max_model_len: int = 0  # the longest sequence that the rope tables are for; 0: what the model was made for
    row_len: int = 0  # positions of a row of the cache, fixed in the graph; 0: "M", the caller's choice at each run

    def __post_init__(self) -> None:
        if self.linear is None:
            object.__setattr__(self, "linear", self._usual_linear())
        if self.kv_dtype is None:
            object.__setattr__(self, "kv_dtype", self.dtype)
        self._check("attention", self.attention, ATTENTION_FORMS)
        self._check("linear", self.linear, tuple(QUANTIZATIONS))
        self._check("dtype", self.dtype, tuple(DATA_TYPES))
        self._check("kv_dtype", self.kv_dtype, tuple(DATA_TYPES))
        assert self.linear is not None
        possible = QUANTIZATIONS[self.linear]
        if self.quantization not in possible:
            raise ValueError(
                f"quantization is {self.quantization!r}: expected {' or '.join(map(repr, possible))} "
                f"with linear={self.linear!r}"
            )
        if not 0 <= self.accuracy_level <= 4:
            raise ValueError(f"accuracy_level is {self.accuracy_level}: expected 0 to 4")
        if self.attention == "paged" and self.dtype == "float32":
            raise ValueError("dtype is 'float32': expected 'float16' or 'bfloat16' with attention='paged'")

    @property
    def data_type(self) -> ir.DataType:
        """The compute dtype in ONNX terms."""
        return DATA_TYPES[self.dtype]

    @property
    def kv_data_type(self) -> ir.DataType:
        """The K/V cache's dtype in ONNX terms."""
        return DATA_TYPES[self.kv_dtype or self.dtype]

    def _usual_linear(self) -> LinearForm:
        if self.quantization is None:
            return "gemm"
        only_qdq = self.quantization in (INT8_ROWS.name, FP8.name)
        return "qdq" if self.attention == "standard-mask" or only_qdq else "nbits"

    @staticmethod
    def _check(name: str, value: object, possible: tuple[str, ...]) -> None:
        if value not in possible:
            raise ValueError(f"{name} is {value!r}: expected {' or '.join(map(repr, possible))}")
