"""What is under test: a backend by name, a compute dtype, quantised weights or not, a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.precision import BOUNDS, ROUTING_BOUNDS, Precision
from ..core.quantization import SCHEMES

__all__ = [
    "BOUNDS",
    "QUANTIZATIONS",
    "ROUTING_BOUNDS",
    "SCALE_FOR_OUTPUT",
    "Precision",
    "Target",
    "wanted_dtypes",
    "wanted_quantizations",
]

QUANTIZATIONS: Mapping[str, int] = {name: SCHEMES[name].weight_bits for name in ("int8", "int4", "w8a8", "w4a8")}
"""Quantised weights that SPEC.md defines, and their bits. The oracle computes with the same weights, exactly."""

SCALE_FOR_OUTPUT = frozenset(name for name in QUANTIZATIONS if SCHEMES[name].scale_for == "output")
"""Those that have one scale for all inputs of an output; the others have one for each block of 32."""


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
