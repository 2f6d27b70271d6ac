"""The oracle: a whole-sequence decoder in float64 numpy and the sampling noise, with no cache and no batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .models import TinyModel, weights

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """What a model computes for one sequence of T tokens."""

    logits: Array  # [T, V]; row t predicts token t + 1
    routing: Array  # [T] how close an expert choice at or before t came to falling otherwise; inf: no experts


class Oracle:
    """One model's exact answers."""

    def __init__(self, model: TinyModel, made: Mapping[str, Array] | None = None) -> None:
        """Use the model's own weights, or other ones under the same names; `lm_head` may be apart from a tied one."""
        self.model, self._w = model, weights(model) if made is None else made

    def trace(self, tokens: list[int]) -> Trace:
        """Compute all logits of a sequence at once."""
        m, w = self.model, self._w
        x = w["embed_tokens"][tokens] * m.embedding_scale  # [T, H]
        routing = np.full(len(tokens), np.inf)
        for i in range(len(m.rope)):
            layer = {name.removeprefix(f"layers.{i}."): v for name, v in w.items() if name.startswith(f"layers.{i}.")}
            y = self._attention(self._norm(x, layer["input_norm"]), layer, m.rope[i], m.windows[i])
            x = x + (self._norm(y, layer["post_attention_norm"]) if m.sandwich else y)
            y = self._norm(x, layer["pre_mlp_norm"])
            if m.experts:
                y, gap = self._experts(y, layer)
                routing = np.minimum(routing, gap)
            else:
                y = self._mlp(y, layer, "")
            x = x + (self._norm(y, layer["post_mlp_norm"]) if m.sandwich else y)
        logits = self._linear(self._norm(x, w["norm"]), w.get("lm_head", w["embed_tokens"]))
        if m.logits_softcap:
            logits = m.logits_softcap * np.tanh(logits / m.logits_softcap)
        return Trace(logits, np.minimum.accumulate(routing))

    def _linear(self, x: Array, weight: Array) -> Array:
        """Multiply [T, K] by a weight [N, K]. Exact here; a negative control rounds as some devices do."""
        return x @ weight.T

    def _norm(self, x: Array, weight: Array) -> Array:
        """RMS norm over the last axis."""
        scale: Array = 1.0 / np.sqrt((x * x).mean(-1, keepdims=True) + self.model.norm_eps)
        return x * scale * (weight + self.model.norm_offset)

    def _attention(self, x: Array, layer: dict[str, Array], rope: bool, window: int | None) -> Array:
        m, length = self.model, len(x)
        q = self._linear(x, layer["q_proj"]).reshape(length, m.heads, m.head_dim)
        k = self._linear(x, layer["k_proj"]).reshape(length, m.kv_heads, m.head_dim)
        v = self._linear(x, layer["v_proj"]).reshape(length, m.kv_heads, m.head_dim)
        if m.qk_norm:
            q, k = self._norm(q, layer["q_norm"]), self._norm(k, layer["k_norm"])
        if rope:
            q, k = self._rotate(q), self._rotate(k)
        back = np.arange(length)[:, None] - np.arange(length)[None]  # how far back a key lies
        seen = (back >= 0) & (back < (window or length))
        heads = []
        for head in range(m.heads):
            shared = head // (m.heads // m.kv_heads)
            score = q[:, head] @ k[:, shared].T / math.sqrt(m.head_dim)
            if m.attention_softcap:
                score = m.attention_softcap * np.tanh(score / m.attention_softcap)
            heads.append(_softmax(np.where(seen, score, -np.inf)) @ v[:, shared])
        return self._linear(np.concatenate(heads, axis=-1), layer["o_proj"])

    def _rotate(self, x: Array) -> Array:
        """Rotate the first rotary_dim dimensions of each head by position, first half against second."""
        m = self.model
        frequency = m.rope_theta ** (-np.arange(0, m.rotary_dim, 2) / m.rotary_dim)
        if m.llama3:
            frequency = np.array([_llama3(f, *m.llama3) for f in frequency])
        angle = np.arange(len(x))[:, None, None] * frequency  # [T, 1, rotary_dim / 2]
        a, b, rest = np.split(x, [m.rotary_dim // 2, m.rotary_dim], axis=-1)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)

    def _mlp(self, x: Array, layer: dict[str, Array], expert: str) -> Array:
        gate, up = self._linear(x, layer[expert + "gate_proj"]), self._linear(x, layer[expert + "up_proj"])
        if self.model.gelu:
            gate = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        return self._linear(gate * up, layer[expert + "down_proj"])

    def _experts(self, x: Array, layer: dict[str, Array]) -> tuple[Array, Array]:
        """Mix the best experts by renormalised probability; also the gap between the last chosen and the next."""
        used, router = self.model.experts_used, self._linear(x, layer["router"])  # [T, E]
        order = np.argsort(-router, axis=-1, kind="stable")
        out = np.zeros_like(x)
        for t in range(len(x)):
            chosen = order[t, :used]
            share = _softmax(router[t, chosen])
            for e, s in zip(chosen, share, strict=True):
                out[t] += s * self._mlp(x[t], layer, f"experts.{e}.")
        ranked = np.take_along_axis(router, order, -1)
        return out, ranked[:, used - 1] - ranked[:, used]


def _softmax(x: Array) -> Array:
    e: Array = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """Log-probabilities over the last axis."""
    y = x - x.max(-1, keepdims=True)
    return np.asarray(y - np.log(np.exp(y).sum(-1, keepdims=True)))


def _llama3(frequency: float, factor: float, low: float, high: float, original: float) -> float:
    """Llama 3's scaling: short waves stay, long waves are slowed by factor, those between are blended."""
    turns = original * frequency / (2 * math.pi)
    blend = min(max((turns - low) / (high - low), 0.0), 1.0)
    return (1 - blend) * frequency / factor + blend * frequency


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 in plain integers (Salmon et al., 2011)."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        x, y = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (y >> 32) ^ b ^ k, y & 0xFFFFFFFF, (x >> 32) ^ d ^ m, x & 0xFFFFFFFF
        k, m = (k + 0x9E3779B9) & 0xFFFFFFFF, (m + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def noise(seed: int, position: int, vocab_size: int) -> Array:
    """The Gumbel noise of every token [V] at one position of a request."""
    bits: list[int] = []
    for word in range(-(-vocab_size // 4)):
        bits += philox((word, position & 0xFFFFFFFF, position >> 32, 0), (seed & 0xFFFFFFFF, seed >> 32))
    u = ((np.array(bits[:vocab_size]) >> 9) + 0.5) * 2.0**-23
    return np.asarray(-np.log(-np.log(u)))
