"""A decoder-only transformer of any supported family, as its DecoderSpec describes it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...core.decoder_spec import DecoderSpec, LayerSpec, RopeSpec, rope_tables
from .layers import Attention, Experts, Mlp, RmsNorm, StepInputs, load_norm
from .linear import Linear
from .weights import WeightLoader


class Layer:
    """x += f * norm(attention(norm(x))); x += f * norm(mlp(norm(x))), with the norms that the spec places."""

    def __init__(self, spec: DecoderSpec, index: int, loader: WeightLoader) -> None:
        layer, prefix = spec.layers[index], f"layers.{index}"
        before, after = spec.norm_placement != "post", spec.norm_placement != "pre"
        self.dtype = loader.dtype
        self.residual_scale = spec.residual_scale

        def norm(name: str, there: bool) -> RmsNorm | None:
            return load_norm(loader, f"{prefix}.{name}", spec) if there else None

        self.input_norm = norm("input_norm", before)
        self.attention = Attention(spec, layer, loader, prefix)
        self.post_attention_norm = norm("post_attention_norm", after)
        self.pre_mlp_norm = norm("pre_mlp_norm", before)
        self.mlp = _load_mlp(spec, layer, loader, prefix)
        self.post_mlp_norm = norm("post_mlp_norm", after)

    def __call__(self, x: Tensor, step: StepInputs, cache: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the residual stream [T, H] float32 after this layer, of all tokens or of `rows` alone.

        Writes every token's K/V to the layer's cache, and over x.
        """
        y = self.attention(self._before(x, self.input_norm), step, cache, rows)
        x = x if rows is None else x.index_select(0, rows)
        self._add(x, y, self.post_attention_norm)
        y = self.mlp(self._before(x, self.pre_mlp_norm))
        return self._add(x, y, self.post_mlp_norm)

    def _before(self, x: Tensor, norm: RmsNorm | None) -> Tensor:
        return x.to(self.dtype) if norm is None else norm(x)

    def _add(self, x: Tensor, y: Tensor, norm: RmsNorm | None) -> Tensor:
        """Add residual_scale * norm(y) to x."""
        return x.add_(y if norm is None else norm(y), alpha=self.residual_scale)


def _load_mlp(spec: DecoderSpec, layer: LayerSpec, loader: WeightLoader, prefix: str) -> Mlp | Experts:
    return Experts(spec, layer, loader, prefix) if layer.num_experts else Mlp(spec, loader, prefix)


class Decoder:
    """Embeddings, layers, final norm and output head. Holds the weights, no state."""

    def __init__(self, spec: DecoderSpec, loader: WeightLoader, max_model_len: int) -> None:
        self.spec = spec
        self.dtype = loader.dtype
        self.embeddings = loader.embedding("embed_tokens")
        self.layers = [Layer(spec, index, loader) for index in range(spec.num_layers)]
        self.norm = load_norm(loader, "norm", spec)
        self.head = self._load_head(loader)
        ropes = {layer.rope for layer in spec.layers if layer.rope is not None}
        self.ropes = {rope: _turns(rope, max_model_len).to(loader.device) for rope in ropes}

    def _load_head(self, loader: WeightLoader) -> Linear:
        if not self.spec.tied_embeddings:
            return loader.linear("lm_head")
        if loader.packed or self.embeddings.dtype != self.dtype:
            return loader.linear("embed_tokens")
        return Linear(self.embeddings)

    def turns(self, positions: Tensor) -> dict[RopeSpec, Tensor]:
        """Return each rope's angles at positions [T], as complex numbers [T, rotary_dim / 2]."""
        return {rope: table.index_select(0, positions) for rope, table in self.ropes.items()}

    def forward(self, step: StepInputs, caches: Tensor) -> Tensor:
        """Return the last layer's output for the L wanted tokens [L, H].

        caches [layers, tiles, 2 * kv_heads, tile_size, D] is written to.
        """
        # The residual stream stays in float32: rounding it at each layer is most of the error in 16 bits.
        x = functional.embedding(step.input_ids, self.embeddings).float()
        if self.spec.embedding_scale != 1:
            x = x * self.spec.embedding_scale
        for layer, cache in zip(self.layers, caches.unbind(), strict=True):
            x = layer(x, step, cache, step.wanted if layer is self.layers[-1] else None)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Return float32 logits [L, V] of rows [L, H] of forward's result."""
        logits = self.head(self.norm(x)).float()
        if self.spec.logits_scale != 1:
            logits *= self.spec.logits_scale
        if self.spec.logits_softcap is not None:
            logits = self.spec.logits_softcap * torch.tanh(logits / self.spec.logits_softcap)
        return logits


def _turns(rope: RopeSpec, length: int) -> Tensor:
    """Return cos + i sin [length, rotary_dim / 2] in complex64."""
    cos, sin = rope_tables(rope, length)
    return torch.from_numpy((cos + 1j * sin).astype(np.complex64))
