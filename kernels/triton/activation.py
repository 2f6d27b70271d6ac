"""The gate of a gated MLP."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def activate_(x: Tensor, kind: str) -> Tensor:
    """Apply "silu", "gelu", "gelu_tanh" or "relu", in place where torch can, and return the result."""
    match kind:
        case "silu":
            return functional.silu(x, inplace=True)
        case "gelu":
            return functional.gelu(x)
        case "gelu_tanh":
            return functional.gelu(x, approximate="tanh")
        case "relu":
            return x.relu_()
    raise ValueError(f"activation {kind!r}: expected silu, gelu, gelu_tanh or relu")


def gated_activation(gate: Tensor, up: Tensor, kind: str) -> Tensor:
    """Return activation(gate) * up, all [T, I]. May overwrite gate."""
    return activate_(gate, kind).mul_(up)
