"""Root mean square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32, in the dtype of x.

    x [..., H] of any float dtype; weight broadcasts against it, in x's dtype or float32.
    """
    if weight.dtype == x.dtype and weight.dim() == 1:
        return functional.rms_norm(x, weight.shape, weight, eps)
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)
