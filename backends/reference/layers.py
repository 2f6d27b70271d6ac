"""The arithmetic of a decoder in numpy, every sum in an order that depends on nothing but its own row.

A matrix product out of a BLAS library rounds a row differently depending on how many rows stand beside it. Here every
operation is elementwise or a sum along one row, so the result for a token is bitwise the same in any company: alone or
in any batch, in a chunk or as a decode. That is what lets the backend declare `batch_invariant`. `blas_linear` gives
that up for speed: it serves where many tokens are only to be judged, as the benchmarks do.

Sizes: T tokens, H hidden, D head_dim, K key positions that a query sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Linear(Protocol):
    """What `linear` does, however it adds up."""

    def __call__(self, x: Array, weight: Array, bias: Array | None = None, /) -> Array:
        """Return x [T, inputs] @ weight [inputs, outputs] + bias."""
        ...


_erf = np.vectorize(math.erf, otypes=[np.float64])


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x [T, inputs] @ weight [inputs, outputs] + bias, adding up the inputs one after the other."""
    out = np.zeros((len(x), weight.shape[1]), x.dtype)
    term = np.empty_like(out)
    for column, row in zip(x.T, weight, strict=True):
        out += np.multiply(column[:, None], row, out=term)
    return out if bias is None else out + bias


def blas_linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """As `linear`, many times faster, and rounded as the BLAS library likes: not the same in any company."""
    out = x @ weight
    return out if bias is None else out + bias


def rms_norm(x: Array, weight: Array, eps: float, offset: float) -> Array:
    """Return x / rms(x) * (weight + offset) along the last axis."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + eps) * (weight + offset)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn the leading 2 * len(cos[0]) dimensions of x [T, heads, D]; cos and sin [T, rotary_dim / 2]."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def attend(query: Array, keys: Array, values: Array, scale: float, cap: float | None) -> Array:
    """Let one query [heads, D] look at the keys and values [K, kv_heads, D] that it may see; return [heads, D]."""
    groups = query.reshape(keys.shape[1], -1, query.shape[-1])  # [kv_heads, heads / kv_heads, D]
    scores = softcap((groups * keys[:, :, None]).sum(axis=-1) * scale, cap)  # [K, kv_heads, heads / kv_heads]
    weights = np.exp(scores - scores.max(axis=0))
    weights /= weights.sum(axis=0)
    return (weights[..., None] * values[:, :, None]).sum(axis=0).reshape(query.shape)


def softcap(x: Array, cap: float | None) -> Array:
    """Return cap * tanh(x / cap), or x where there is no cap."""
    return x if cap is None else cap * np.tanh(x / cap)


def route(logits: Array, top_k: int, normalize: bool) -> Array:
    """Return each token's weight for each expert [T, experts]: softmax, with all but the top_k best set to 0."""
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    ranked = np.argsort(-probabilities, axis=-1, kind="stable")  # the lowest index wins a tie
    chosen = np.zeros_like(probabilities)
    np.put_along_axis(chosen, ranked[:, :top_k], np.take_along_axis(probabilities, ranked[:, :top_k], -1), -1)
    return chosen / chosen.sum(axis=-1, keepdims=True) if normalize else chosen


def silu(x: Array) -> Array:
    """Return x * sigmoid(x); exp never overflows."""
    decay = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1, decay) / (1 + decay)


def gelu(x: Array) -> Array:
    """Return x * Phi(x), Phi being the normal distribution."""
    return x * (1 + _erf(x / math.sqrt(2)).astype(x.dtype)) / 2


def gelu_tanh(x: Array) -> Array:
    """Return gelu by its usual approximation with tanh."""
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))) / 2


def relu(x: Array) -> Array:
    """Return max(x, 0)."""
    return np.maximum(x, 0)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu}
