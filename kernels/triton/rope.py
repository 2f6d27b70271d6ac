"""Rotary position embedding, in place."""

from __future__ import annotations

from torch import Tensor


def rope_(
    x: Tensor,  # [T, heads, D], any strides; rotated in place
    cos: Tensor,  # [T, R] float32: cos twice over, R the rotary dimension
    sin: Tensor,  # [T, R] float32: -sin, then sin
) -> None:
    """Turn dimension i of the first R against dimension i + R / 2, by each token's angles, in float32; D - R stay.

    y[i] = x[i] cos - x[i + R/2] sin; y[i + R/2] = x[i + R/2] cos + x[i] sin.
    """
    size = cos.shape[-1]
    part = x[..., :size]
    wide = part.float()
    turned = (wide * cos.unsqueeze(1)).addcmul_(wide.roll(size // 2, -1), sin.unsqueeze(1))
    part.copy_(turned)
