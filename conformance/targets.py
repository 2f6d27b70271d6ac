"""What is under test: a backend by name, a compute dtype, quantised weights or not, a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.quantization import SCHEMES

BOUNDS: Mapping[str, float] = {"float64": 1e-6, "float32": 2e-5, "float16": 8e-3, "bfloat16": 5e-2}
"""How far a logit may lie from the oracle's, in parts of the row's largest magnitude (float64: a float32 answer)."""

ROUTING_BOUNDS: Mapping[str, float] = {"float64": 1e-5, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
"""Expert choices closer than this, in router logits, are not judged."""

QUANTIZATIONS: Mapping[str, int] = {name: SCHEMES[name].weight_bits for name in ("int8", "int4", "w8a8", "w4a8")}
"""Quantised weights that SPEC.md defines, and their bits. The oracle computes with the same weights, exactly."""

SCALE_FOR_OUTPUT = frozenset(name for name in QUANTIZATIONS if SCHEMES[name].scale_for == "output")
"""Those that have one scale for all inputs of an output; the others have one for each block of 32."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One column of the matrix."""

    backend: str
    dtype: str
    quantization: str | None = None
    device: str = "auto"
    options: tuple[tuple[str, str], ...] = ()  # RunnerConfig.options

    def __str__(self) -> str:
        words = [self.backend, self.dtype, self.quantization, None if self.device == "auto" else self.device]
        return "-".join(word for word in words if word)

    @property
    def precision(self) -> Precision:
        """How exact its answers are expected to be."""
        return Precision(self.dtype, self.quantization)

    @property
    def exact(self) -> bool:
        """Whether goldens must come out token by token."""
        return self.precision.exact


def wanted_dtypes(backend: str, declared: frozenset[str], asked: Sequence[str]) -> list[str]:
    """Dtypes to test: those asked for ("float32", "all", or "torch:bfloat16" for one backend) that are declared.

    Nothing asked: float32, or else the widest declared.
    """
    ranked = [d for d in BOUNDS if d in declared] + sorted(declared - set(BOUNDS))
    mine = _asked_of(backend, asked)
    if "all" in mine:
        return ranked
    if mine:
        return [d for d in mine if d in declared]
    return ["float32"] if "float32" in declared else ranked[:1]


def wanted_quantizations(backend: str, declared: frozenset[str], asked: Sequence[str]) -> list[str | None]:
    """Quantisations to test, None being weights as they are: "int8", "none", "all", or "onnxruntime:int8".

    Nothing asked: weights as they are. Only those that are declared and that the suite can judge.
    """
    known = [q for q in QUANTIZATIONS if q in declared]
    mine = _asked_of(backend, asked)
    if "all" in mine:
        return [None, *known]
    if mine:
        return [None if q == "none" else q for q in mine if q == "none" or q in known]
    return [None]


def _asked_of(backend: str, asked: Sequence[str]) -> list[str]:
    return [a.removeprefix(f"{backend}:") for a in asked if ":" not in a or a.startswith(f"{backend}:")]
