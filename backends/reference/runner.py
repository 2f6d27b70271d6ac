"""The reference runner: interprets a DecoderSpec with numpy over a paged K/V cache."""

from __future__ import annotations

import numpy as np

from ...core.batch import Batch
from ...core.decoder_spec import DecoderSpec, LayerSpec, RopeSpec, inverse_frequencies
from ...core.interfaces import RunnerInfo, Sampler
from .layers import ACTIVATIONS, Array, Linear, attend, linear, rms_norm, rotate, route, softcap
from .weights import Weights, within

Rotations = dict[RopeSpec, tuple[Array, Array]]  # cos and sin [T, rotary_dim / 2] for the positions of one batch


class ReferenceRunner:
    """A model in memory with its K/V cache: keys and values [layers, num_blocks, block_size, kv_heads, head_dim]."""

    sampler: Sampler | None = None  # the host's

    def __init__(self, spec: DecoderSpec, weights: Weights, info: RunnerInfo, linear: Linear = linear) -> None:
        self.spec = spec
        self.info = info
        self._linear = linear
        self._weights = weights
        self._layers = [within(weights, f"layers.{i}.") for i in range(spec.num_layers)]
        shape = (spec.num_layers, info.num_blocks, info.block_size, spec.num_kv_heads, spec.head_dim)
        self._keys: Array = np.empty(shape, info.dtype)
        self._values: Array = np.empty(shape, info.dtype)
        ropes = {layer.rope for layer in spec.layers if layer.rope is not None}
        self._frequencies = {rope: inverse_frequencies(rope, info.max_model_len) for rope in ropes}

    def forward(self, batch: Batch) -> Array:
        """Compute one step; see ModelRunner.forward. Returns a fresh array [L, vocab_size] in the compute dtype."""
        for source, target, num_tokens in batch.block_copies:
            for cache in (self._keys, self._values):
                cache[:, target, :num_tokens] = cache[:, source, :num_tokens]
        rotations = self._rotations(batch.positions)
        x = self._weights["embed_tokens"][batch.input_ids] * self.spec.embedding_scale  # [T, H]
        for i in range(self.spec.num_layers):
            x = self._layer(i, x, rotations, batch)
        x = self._norm(x[batch.logits_indices], self._weights["norm"])
        logits = self._linear(x, self._weights["lm_head"]) * self.spec.logits_scale
        return softcap(logits, self.spec.logits_softcap)

    def close(self) -> None:
        """Forget weights and cache."""
        self._weights, self._layers = {}, []
        self._keys = self._values = np.empty(0)

    def _rotations(self, positions: Array) -> Rotations:
        rotations = {}
        for rope, (inv_freq, factor) in self._frequencies.items():
            angles = positions[:, None] * inv_freq  # in float64 whatever the compute dtype
            cos, sin = np.cos(angles) * factor, np.sin(angles) * factor
            rotations[rope] = cos.astype(self.info.dtype), sin.astype(self.info.dtype)
        return rotations

    def _norm(self, x: Array, weight: Array | None) -> Array:
        """Norm x, or leave it as it is where the model has no norm in that place."""
        return x if weight is None else rms_norm(x, weight, self.spec.norm_eps, self.spec.norm_offset)

    def _layer(self, i: int, x: Array, rotations: Rotations, batch: Batch) -> Array:
        layer, weights = self.spec.layers[i], self._layers[i]
        attended = self._attention(i, self._norm(x, weights.get("input_norm")), rotations, batch)
        x = x + self.spec.residual_scale * self._norm(attended, weights.get("post_attention_norm"))
        mlp = self._experts if layer.num_experts else self._mlp
        transformed = mlp(self._norm(x, weights.get("pre_mlp_norm")), weights)
        return x + self.spec.residual_scale * self._norm(transformed, weights.get("post_mlp_norm"))

    def _attention(self, i: int, x: Array, rotations: Rotations, batch: Batch) -> Array:
        """Write this step's keys and values, then let each query look back over its request's blocks."""
        spec, layer, weights = self.spec, self.spec.layers[i], self._layers[i]
        query = self._heads(x, weights, "q", layer, rotations)
        value = self._linear(x, weights["v_proj"], weights.get("v_proj.bias"))
        slots = divmod(batch.slot_mapping, self.info.block_size)
        self._keys[i][slots] = self._heads(x, weights, "k", layer, rotations)
        self._values[i][slots] = value.reshape(len(x), -1, spec.head_dim)
        out = np.empty_like(query)  # [T, heads, D]
        for n, seq_len in enumerate(batch.seq_lens):
            blocks = batch.block_table[n, : -(-seq_len // self.info.block_size)]
            keys = self._keys[i][blocks].reshape(-1, spec.num_kv_heads, spec.head_dim)
            values = self._values[i][blocks].reshape(keys.shape)
            for t in range(batch.query_start_loc[n], batch.query_start_loc[n + 1]):
                stop = batch.positions[t] + 1
                start = 0 if layer.sliding_window is None else max(0, stop - layer.sliding_window)
                seen = slice(start, stop)
                out[t] = attend(query[t], keys[seen], values[seen], spec.attention_scale, spec.attention_softcap)
        return self._linear(out.reshape(len(x), -1), weights["o_proj"], weights.get("o_proj.bias"))

    def _heads(self, x: Array, weights: Weights, which: str, layer: LayerSpec, rotations: Rotations) -> Array:
        """Project to queries or keys [T, heads, D], norm them where the model does, and rotate them."""
        heads = self._linear(x, weights[f"{which}_proj"], weights.get(f"{which}_proj.bias"))
        norm = weights.get(f"{which}_norm")
        if self.spec.qk_norm == "full":
            heads = self._norm(heads, norm)
        heads = heads.reshape(len(x), -1, self.spec.head_dim)
        if self.spec.qk_norm == "head":
            heads = self._norm(heads, norm)
        return heads if layer.rope is None else rotate(heads, *rotations[layer.rope])

    def _mlp(self, x: Array, weights: Weights, prefix: str = "") -> Array:
        gate, up, down = (prefix + name for name in ("gate_proj", "up_proj", "down_proj"))
        activated = ACTIVATIONS[self.spec.activation](self._linear(x, weights[gate], weights.get(f"{gate}.bias")))
        widened = activated * self._linear(x, weights[up], weights.get(f"{up}.bias"))
        return self._linear(widened, weights[down], weights.get(f"{down}.bias"))

    def _experts(self, x: Array, weights: Weights) -> Array:
        """Add up the chosen experts of each token, in order of their index."""
        shares = route(self._linear(x, weights["router"]), self.spec.moe_top_k, self.spec.moe_normalize_top_k)
        out = np.zeros_like(x)
        for expert, share in enumerate(shares.T):
            tokens = np.flatnonzero(share)
            if len(tokens):
                out[tokens] += share[tokens, None] * self._mlp(x[tokens], weights, f"experts.{expert}.")
        return out
