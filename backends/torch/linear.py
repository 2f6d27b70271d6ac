"""Linear layers, plain or prepacked by oneDNN, with the operations that may be fused behind them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...kernels.triton.activation import activate_

_FUSED = {"silu": ("swish", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "relu": ("relu", "")}


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether oneDNN has packed bfloat16 products here; they are 1.3 to 1.7 times faster up to some 100 rows."""
    if device.type != "cpu" or dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return False
    ops: Any = torch.ops.mkldnn
    return (
        hasattr(ops, "_linear_pointwise")
        and hasattr(ops, "_reorder_linear_weight")
        and bool(ops._is_mkldnn_bf16_supported())
    )


class Linear:
    """y = x @ weight.T + bias, x [..., K], weight [N, K], bias [N] or None."""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias

    @property
    def num_bytes(self) -> int:
        """Bytes of weight and bias."""
        bias = 0 if self.bias is None else self.bias.numel() * self.bias.element_size()
        return self.weight.numel() * self.weight.element_size() + bias

    def __call__(self, x: Tensor) -> Tensor:
        """Return y."""
        return functional.linear(x, self.weight, self.bias)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """Return y * other."""
        return self(x).mul_(other)

    def activated(self, x: Tensor, kind: str) -> Tensor:
        """Return activation(y)."""
        return activate_(self(x), kind)


class PackedLinear(Linear):
    """The same with the weight in oneDNN's blocked layout, and what follows fused into the product."""

    __slots__ = ()

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        # The hint of one row gives a layout that suits every number of rows; others were slower at 512.
        super().__init__(torch.ops.mkldnn._reorder_linear_weight(weight, 1), bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Return y."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """Return y * other."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "mul")
        return y

    def activated(self, x: Tensor, kind: str) -> Tensor:
        """Return activation(y)."""
        name, algorithm = _FUSED[kind]
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], algorithm)
        return y
