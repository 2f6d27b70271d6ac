"""Root mean square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32, in dtype.

    x [..., H] of any float dtype; weight [H] float32.
    """
    return functional.rms_norm(x.float(), weight.shape, weight, eps).to(dtype)
