"""What a dtype, a quantisation and a K/V dtype come to: the forms in which weights, activations and K/V lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ...core.interfaces import RunnerConfig
from ...core.types import Unsupported
from ...kernels.cpu import program as kernels

COMPUTE = {"float32": kernels.FORM_F32, "bfloat16": kernels.FORM_BF16}
FLOATS = frozenset(COMPUTE.values())
WEIGHTS = {
    "int8": kernels.FORM_I8_GROUPS,
    "int4": kernels.FORM_I4_GROUPS,
    "w8a8": kernels.FORM_I8,
    "w4a8": kernels.FORM_I4_A8,
}
WEIGHT_ONLY = ("int8", "int4")
WEIGHT_ONLY_DTYPE = "bfloat16"
"""Of activations that meet weights in groups, where the model is of 16 bits: float32 ones take five times as long."""

OPERANDS = {"w8a8": kernels.FORM_I8, "w4a8": kernels.FORM_I8_SUMMED}  # of the others: the compute dtype's
CACHES = {"float32": kernels.FORM_F32, "bfloat16": kernels.FORM_BF16, "int8": kernels.FORM_I8}
VERIFY_COSTS = {
    kernels.FORM_F32: 0.03,
    kernels.FORM_BF16: 0.02,
    kernels.FORM_I8: 0.09,
    kernels.FORM_I4_A8: 0.1,
    kernels.FORM_I8_GROUPS: 0.15,
    kernels.FORM_I4_GROUPS: 0.24,
}
"""Of one more token in a step, in parts of a step of one token (RunnerInfo.verify_cost), by the form of weights.

Measured by benchmarks.speculation on AVX-512 and AMX; float32 and 8 bits in groups are estimates. Of bfloat16 a line
through 1 to 8 tokens says 0.03, most of it in one stair from 3 tokens to 4, behind which more cost nearly nothing; one
round with 0.02 gained more than one with 0.05, so it stays. Of w4a8 it says 0.17, and 0.09 up to 5 tokens."""

GROUPED = (kernels.FORM_I8_GROUPS, kernels.FORM_I4_GROUPS, kernels.FORM_I4_A8)
GROUP = 32  # inputs that share a scale
STORED = {"float32": kernels.FORM_F32, "bfloat16": kernels.FORM_BF16, "float16": kernels.FORM_F16}  # in checkpoints
DTYPES: dict[int, np.dtype[Any]] = {
    kernels.FORM_F32: np.dtype(np.float32),
    kernels.FORM_BF16: np.dtype(ml_dtypes.bfloat16),
    kernels.FORM_I8: np.dtype(np.uint8),
    kernels.FORM_I8_SUMMED: np.dtype(np.int8),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How numbers lie in memory, in the words of kernels/cpu."""

    dtype: str
    quantization: str | None
    kv_dtype: str

    @classmethod
    def read(cls, config: RunnerConfig, stored: str, *, is_packed: bool = False) -> Precision:
        """Settle what a configuration leaves open, given the checkpoint's dtype. Raises Unsupported."""
        dtype = config.dtype
        if dtype == "auto":
            if is_packed or config.quantization in WEIGHT_ONLY:
                stored = WEIGHT_ONLY_DTYPE if stored == "float16" else stored
            dtype = stored if stored in COMPUTE else "float32"
        if dtype not in COMPUTE:
            raise Unsupported(f"backend native: dtype {dtype!r} is not one of auto, {', '.join(COMPUTE)}")
        kv_dtype = dtype if config.kv_cache_dtype == "auto" else config.kv_cache_dtype
        return cls(dtype=dtype, quantization=config.quantization, kv_dtype=kv_dtype)

    @property
    def compute(self) -> int:
        """The form that activations are rounded to between operations."""
        return COMPUTE[self.dtype]

    @property
    def weights(self) -> int:
        """The form of every matrix but routers."""
        return WEIGHTS[self.quantization] if self.quantization else self.compute

    @property
    def operand(self) -> int:
        """The form of activations that these matrices read."""
        return OPERANDS.get(self.quantization or "", self.compute)

    @property
    def rounds_operands(self) -> bool:
        """Whether that is not a form in which an operation before could leave its result."""
        return self.operand != self.compute

    @property
    def between(self) -> int:
        """The form of a result that is the operand of a matrix as it is, or is rounded to one."""
        return kernels.FORM_F32 if self.rounds_operands else self.compute

    @property
    def cache(self) -> int:
        """The form of keys and values."""
        return CACHES[self.kv_dtype]

    @property
    def queries(self) -> int:
        """The form of the queries that meet them."""
        return kernels.FORM_F32 if self.cache == kernels.FORM_F32 else kernels.FORM_BF16


def group_of(form: int) -> int:
    """Return how many inputs share a scale, 0 where they do not."""
    return GROUP if form in GROUPED else 0
