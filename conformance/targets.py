"""What is under test: a backend by name, a compute dtype, a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOUNDS: Mapping[str, float] = {"float64": 1e-6, "float32": 2e-5, "float16": 8e-3, "bfloat16": 5e-2}
"""How far a logit may lie from the oracle's, in parts of the row's largest magnitude (float64: a float32 answer)."""

ROUTING_BOUNDS: Mapping[str, float] = {"float64": 1e-5, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
"""Expert choices closer than this, in router logits, are not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One column of the matrix."""

    backend: str
    dtype: str
    device: str = "auto"
    options: tuple[tuple[str, str], ...] = ()  # RunnerConfig.options

    def __str__(self) -> str:
        return f"{self.backend}-{self.dtype}" + ("" if self.device == "auto" else f"-{self.device}")

    @property
    def exact(self) -> bool:
        """Whether the goldens' margins exceed what this dtype can get wrong, so that tokens must be equal."""
        return self.dtype in ("float64", "float32")


def wanted_dtypes(backend: str, declared: frozenset[str], asked: Sequence[str]) -> list[str]:
    """Dtypes to test: those asked for ("float32", "all", or "torch:bfloat16" for one backend) that are declared.

    Nothing asked: float32, or else the widest declared.
    """
    ranked = [d for d in BOUNDS if d in declared] + sorted(declared - set(BOUNDS))
    mine = [a.removeprefix(f"{backend}:") for a in asked if ":" not in a or a.startswith(f"{backend}:")]
    if "all" in mine:
        return ranked
    if mine:
        return [d for d in mine if d in declared]
    return ["float32"] if "float32" in declared else ranked[:1]
