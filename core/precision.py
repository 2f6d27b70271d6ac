"""How exact an answer can be: bounds on logits by compute dtype and weights, for whoever judges tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BOUNDS: Mapping[str, float] = {"float64": 1e-6, "float32": 2e-5, "float16": 8e-3, "bfloat16": 5e-2}
"""How far a logit may lie from the oracle's, in parts of the row's largest magnitude (float64: a float32 answer).

Above what was seen at most on the conformance suite's models, which are small, so that errors do not average out.
"""

ROUTING_BOUNDS: Mapping[str, float] = {"float64": 1e-5, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
"""Expert choices closer than this, in router logits, are not judged."""

QUANTIZED_BOUND, QUANTIZED_TIE, QUANTIZED_ROUTING_BOUND = 0.1, 0.06, 0.5
"""Where weights are quantised, kernels round activations to 8 bits as well, and a last bit that differs may move one
by a whole step: the bound on a logit, half the margin above which tokens must be the oracle's, the bound on routing.

Seen on the suite's models: a logit off by 0.085 at most and 0.025 in the mean of rows, tokens that differ at margins up
to 0.05. Twice the bound would be the margin for certain, but would leave four positions of five undecided."""


@dataclass(frozen=True, slots=True)
class Precision:
    """What decides how far logits may be off, and which weights the oracle computes with."""

    dtype: str
    quantization: str | None = None

    def __str__(self) -> str:
        return f"{self.dtype} {self.quantization}" if self.quantization else self.dtype

    @property
    def bound(self) -> float:
        """How far a logit may lie from the oracle's, in parts of the row's largest magnitude."""
        return max(BOUNDS[self.dtype], QUANTIZED_BOUND) if self.quantization else BOUNDS[self.dtype]

    @property
    def tie(self) -> float:
        """Half the margin, likewise, above which a token must be the oracle's: the bound, where that decides enough."""
        return QUANTIZED_TIE if self.quantization else self.bound

    @property
    def routing_bound(self) -> float:
        """Expert choices closer than this, in router logits, are not judged."""
        return ROUTING_BOUNDS[self.dtype] if not self.quantization else QUANTIZED_ROUTING_BOUND

    @property
    def least_decided(self) -> float:
        """The share of positions that the bound must decide, or a certificate excuses too much."""
        return 0.98 if self.exact else 0.2 if self.quantization else 0.25

    @property
    def exact(self) -> bool:
        """Whether the goldens' margins exceed what this can get wrong, so that tokens must be equal."""
        return self.quantization is None and self.dtype in ("float64", "float32")
