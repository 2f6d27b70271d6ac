"""The small twins against the formulas in their docstrings, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from isotoken.kernels.triton.activation import gated_activation
from isotoken.kernels.triton.kv_write import kv_write
from isotoken.kernels.triton.norm import rms_norm
from isotoken.kernels.triton.rope import rope_


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rms_norm(dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 24) * 7, torch.randn(24)
    wide = x.double().numpy()
    want = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight.double().numpy()
    got = rms_norm(x, weight, 1e-5, dtype)
    assert got.dtype == dtype
    np.testing.assert_allclose(got.double().numpy(), want, rtol={2: 1e-2, 4: 1e-5}[dtype.itemsize], atol=1e-5)


def test_rms_norm_of_16_bit_input_is_computed_in_float32() -> None:
    x = (torch.randn(3, 64) * 1000).half()  # squares would overflow
    assert torch.isfinite(rms_norm(x, torch.ones(64), 1e-5, torch.float16)).all()


@pytest.mark.parametrize("rotary_dim", [8, 4])
def test_rope_turns_neighbours_and_leaves_the_rest(rotary_dim: int) -> None:
    heads = torch.randn(6, 4, 8)  # a view with other heads behind: rotation is in place
    x, rest = heads[:, :3], heads[:, 3].clone()
    angles = torch.rand(6, rotary_dim // 2) * 6
    pairs = x[..., :rotary_dim].double().numpy().reshape(6, 3, -1, 2)
    cos, sin = np.cos(angles.double().numpy())[:, None], np.sin(angles.double().numpy())[:, None]
    turned = np.stack(
        (pairs[..., 0] * cos - pairs[..., 1] * sin, pairs[..., 1] * cos + pairs[..., 0] * sin), -1
    ).reshape(6, 3, rotary_dim)
    tail = x[..., rotary_dim:].clone()
    rope_(x, torch.polar(torch.ones_like(angles), angles))
    np.testing.assert_allclose(x[..., :rotary_dim].numpy(), turned, atol=1e-5)
    assert torch.equal(x[..., rotary_dim:], tail)
    assert torch.equal(heads[:, 3], rest)


def test_kv_write_puts_each_token_in_its_slot() -> None:
    cache = torch.zeros(4, 2, 3, 5)
    kv = torch.randn(3, 2, 5)
    kv_write(kv, cache, torch.tensor([2, 0, 2]), torch.tensor([1, 0, 2]))
    want = torch.zeros(4, 2, 3, 5)
    want[2, :, 1], want[0, :, 0], want[2, :, 2] = kv[0], kv[1], kv[2]
    assert torch.equal(cache, want)


@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh", "relu"])
def test_gated_activation(kind: str) -> None:
    gate, up = torch.randn(4, 6), torch.randn(4, 6)
    x = gate.double()
    want = {
        "silu": x / (1 + torch.exp(-x)),
        "gelu": x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "gelu_tanh": 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "relu": x.clamp(min=0),
    }[kind] * up.double()
    torch.testing.assert_close(gated_activation(gate, up, kind).double(), want, rtol=1e-5, atol=1e-5)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="swash"):
        gated_activation(torch.zeros(1), torch.zeros(1), "swash")
