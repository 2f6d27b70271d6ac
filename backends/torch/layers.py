"""The parts of a decoder layer, built from a DecoderSpec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.decoder_spec import DecoderSpec, LayerSpec, RopeSpec
from ...kernels.triton.activation import gated_activation
from ...kernels.triton.kv_write import kv_write
from ...kernels.triton.norm import rms_norm
from ...kernels.triton.rope import rope_
from .attention import Plan, grouped_attention
from .linear import Linear
from .weights import Arrange, WeightLoader, pair_up, unchanged

Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """One step on the device."""

    input_ids: Tensor  # [T] int
    turns: dict[RopeSpec, Tensor]  # [T, rotary_dim / 2] complex: the angles of this step's positions
    tile_ids: Tensor  # [T] int64: where the K/V go
    offsets: Tensor  # [T] int64
    plan: Plan
    wanted: Tensor | None  # [L] int: tokens whose logits are asked for; None: all of them


class RmsNorm:
    """Normalise the last dimension."""

    __slots__ = ("dtype", "eps", "weight")

    def __init__(self, weight: Tensor, eps: float, dtype: torch.dtype) -> None:
        self.weight = weight
        self.eps = eps
        self.dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [..., H] normalised."""
        return rms_norm(x, self.weight, self.eps, self.dtype)


def load_norm(loader: WeightLoader, name: str, spec: DecoderSpec, arrange: Arrange = unchanged) -> RmsNorm:
    """Load a norm; its weight is kept in float32, to which the offset is added."""
    weight = arrange(name, loader.tensor(name, torch.float32))
    return RmsNorm(weight + spec.norm_offset if spec.norm_offset else weight, spec.norm_eps, loader.dtype)


class Attention:
    """Project, normalise and rotate, write the cache, attend, project back."""

    def __init__(self, spec: DecoderSpec, layer: LayerSpec, loader: WeightLoader, prefix: str) -> None:
        self.spec = spec
        self.rope = layer.rope
        self.window = layer.sliding_window
        rotary_dim = 0 if layer.rope is None else layer.rope.rotary_dim

        def arrange(name: str, rows: Tensor) -> Tensor:
            return rows if name.endswith("v_proj") else pair_up(rows, spec.head_dim, rotary_dim)

        names = [f"{prefix}.{part}_proj" for part in "qkv"]
        self.qkv = loader.linear(*names, bias=spec.qkv_bias, arrange=arrange)
        self.out = loader.linear(f"{prefix}.o_proj", bias=spec.o_bias)
        self.q_norm = self.k_norm = None
        if spec.qk_norm != "none":
            self.q_norm = load_norm(loader, f"{prefix}.q_norm", spec, arrange)
            self.k_norm = load_norm(loader, f"{prefix}.k_norm", spec, arrange)

    def __call__(self, x: Tensor, step: StepInputs, cache: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the output [T, H] for x [T, H], or of `rows` of it alone, in the compute dtype."""
        spec = self.spec
        qkv = self.qkv(x)  # [T, (heads + 2 * kv_heads) * D]
        if self.q_norm is not None:
            self._normalise(qkv)
        qkv = qkv.view(len(x), -1, spec.head_dim)
        if self.rope is not None:
            rope_(qkv[:, : spec.num_heads + spec.num_kv_heads], step.turns[self.rope])
        kv_write(qkv[:, spec.num_heads :], cache, step.tile_ids, step.offsets)
        heads = grouped_attention(
            qkv,
            cache,
            step.plan,
            num_heads=spec.num_heads,
            scale=spec.attention_scale,
            window=self.window,
            softcap=spec.attention_softcap,
        )
        return self.out(heads if rows is None else heads.index_select(0, rows))

    def _normalise(self, qkv: Tensor) -> None:
        """Apply q_norm and k_norm in place, over each head or over the whole projection."""
        sizes = (self.spec.q_size, self.spec.kv_size, self.spec.kv_size)
        for part, norm in zip(qkv.split(sizes, dim=1), (self.q_norm, self.k_norm), strict=False):
            assert norm is not None
            heads = part.unflatten(1, (-1, self.spec.head_dim)) if self.spec.qk_norm == "head" else part
            heads.copy_(norm(heads))


class Mlp:
    """down(activation(gate(x)) * up(x))."""

    def __init__(self, spec: DecoderSpec, loader: WeightLoader, prefix: str) -> None:
        self.kind = spec.activation
        self.gate, self.up, self.down = (
            loader.linear(f"{prefix}.{part}_proj", bias=spec.mlp_bias) for part in ("gate", "up", "down")
        )

    def hidden(self, x: Tensor) -> Tensor:
        """Return activation(gate(x)) * up(x) [T, I]."""
        return self.up.times(x, self.gate.activated(x, self.kind))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the MLP's output [T, H]."""
        return self.down(self.hidden(x))


class Experts:
    """A mixture: each token goes through its moe_top_k most probable MLPs, weighted by their probabilities."""

    def __init__(self, spec: DecoderSpec, layer: LayerSpec, loader: WeightLoader, prefix: str) -> None:
        self.spec = spec
        self.router = Linear(loader.tensor(f"{prefix}.router"))
        self.gate_up, self.down = [], []
        for expert in range(layer.num_experts):
            name = f"{prefix}.experts.{expert}"
            self.gate_up.append(loader.linear(f"{name}.gate_proj", f"{name}.up_proj"))
            self.down.append(loader.linear(f"{name}.down_proj"))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the mixture's output [T, H], summed in float32."""
        spec = self.spec
        probabilities = self.router(x).float().softmax(-1)
        # A stable sort, not topk: ties go to the lowest expert.
        weights, chosen = probabilities.sort(dim=-1, descending=True, stable=True)
        weights, chosen = weights[:, : spec.moe_top_k], chosen[:, : spec.moe_top_k]
        if spec.moe_normalize_top_k:
            weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for expert in chosen.unique().tolist():
            rows, slots = (chosen == expert).nonzero(as_tuple=True)
            gate, up = self.gate_up[expert](x[rows]).chunk(2, dim=-1)
            y = self.down[expert](gated_activation(gate, up, spec.activation))
            out.index_add_(0, rows, y.float() * weights[rows, slots, None])
        return out.to(x.dtype)
