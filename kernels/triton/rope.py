"""Rotary position embedding, in place, on heads whose rotating pairs stand side by side."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_(
    x: Tensor,  # [T, heads, D], any strides; rotated in place
    turns: Tensor,  # [T, R / 2] complex64: cos + i sin of each pair's angle
) -> None:
    """Turn dimensions 2i and 2i + 1 of the first R against each other by angle i, in float32; the other D - R stay.

    y[2i] = x[2i] cos - x[2i + 1] sin; y[2i + 1] = x[2i + 1] cos + x[2i] sin: a complex product. Models store the pair
    as dimensions i and i + R / 2; the rows of q_proj and k_proj are put in this order when they are loaded.
    """
    part = x[..., : 2 * turns.shape[-1]]
    pairs = torch.view_as_complex(part.float().unflatten(-1, (-1, 2)))
    part.copy_(torch.view_as_real(pairs * turns.unsqueeze(1)).flatten(-2))
