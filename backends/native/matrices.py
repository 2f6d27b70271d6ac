"""The weights of a model as the kernels want them: which tensors make a packed matrix, and in which order of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.decoder_spec import DecoderSpec
from ...kernels.cpu import program as kernels
from .memory import Array, round_up
from .precision import Precision

LANES = 16  # outputs of gate_proj, and of up_proj, that lie beside each other
PANEL = kernels.PANEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One matrix that a Linear reads."""

    name: str
    sources: tuple[str, ...]  # tensors of the checkpoint, each [rows, inputs]
    rows: tuple[int, ...]  # of each
    inputs: int
    form: int
    gated: bool = False  # rows of the two sources by turns, LANES of each; else one source behind the other
    bias: bool = False

    @property
    def outputs(self) -> int:
        """How many there are for whoever reads the result: of a gated pair one."""
        return self.rows[0] if self.gated else sum(self.rows)

    @property
    def packed_outputs(self) -> int:
        """Rows of the packed matrix, whole panels."""
        return 2 * round_up(self.rows[0], LANES) if self.gated else round_up(sum(self.rows), PANEL)

    def arrange(self, tensors: Sequence[Array], start: int, stop: int) -> Array:
        """Return rows [start, stop) of the packed order out of the sources [rows, K], whole panels of them."""
        dtypes = {tensor.dtype for tensor in tensors}
        out = np.zeros((stop - start, *tensors[0].shape[1:]), dtypes.pop() if len(dtypes) == 1 else np.float32)
        if self.gated:
            pairs = out.reshape(-1, 2, LANES, *out.shape[1:])
            for side, tensor in enumerate(tensors):
                part = tensor[start // 2 : stop // 2]
                whole = len(part) // LANES
                pairs[:whole, side] = part[: whole * LANES].reshape(-1, LANES, *part.shape[1:])
                if len(part) % LANES:
                    pairs[whole, side, : len(part) % LANES] = part[whole * LANES :]
            return out
        begin = 0
        for tensor in tensors:
            low, high = max(start, begin), min(stop, begin + len(tensor))
            if low < high:
                out[low - start : high - start] = tensor[low - begin : high - begin]
            begin += len(tensor)
        return out


@dataclass(frozen=True, slots=True)
class Vector:
    """A norm's weight in float32, its offset added."""

    name: str
    size: int


def matrices(spec: DecoderSpec, precision: Precision) -> Iterator[Matrix]:
    """Yield every matrix, in the order of the layers."""
    for i in range(spec.num_layers):
        yield from _layer_matrices(spec, precision, i)
    yield Matrix(
        name="lm_head",
        sources=("lm_head",),
        rows=(spec.vocab_size,),
        inputs=spec.hidden_size,
        form=precision.weights,
    )


def _layer_matrices(spec: DecoderSpec, precision: Precision, i: int) -> Iterator[Matrix]:
    at, form, hidden = f"layers.{i}.", precision.weights, spec.hidden_size
    yield Matrix(
        name=f"{at}qkv",
        sources=(f"{at}q_proj", f"{at}k_proj", f"{at}v_proj"),
        rows=(spec.q_size, spec.kv_size, spec.kv_size),
        inputs=hidden,
        form=form,
        bias=spec.qkv_bias,
    )
    yield Matrix(
        name=f"{at}o", sources=(f"{at}o_proj",), rows=(hidden,), inputs=spec.q_size, form=form, bias=spec.o_bias
    )
    experts = spec.layers[i].num_experts
    if not experts:
        yield from _mlp(spec, at, spec.intermediate_size, form, bias=spec.mlp_bias)
        return
    router = f"{at}router"
    yield Matrix(name=router, sources=(router,), rows=(experts,), inputs=hidden, form=kernels.FORM_F32)
    for expert in range(experts):
        yield from _mlp(spec, f"{at}experts.{expert}.", spec.moe_intermediate_size, form, bias=False)


def _mlp(spec: DecoderSpec, at: str, size: int, form: int, *, bias: bool) -> Iterator[Matrix]:
    hidden = spec.hidden_size
    gate, down = (f"{at}gate_proj", f"{at}up_proj"), (f"{at}down_proj",)
    yield Matrix(name=f"{at}gate_up", sources=gate, rows=(size, size), inputs=hidden, form=form, gated=True, bias=bias)
    yield Matrix(name=f"{at}down", sources=down, rows=(hidden,), inputs=size, form=form, bias=bias)


def vectors(spec: DecoderSpec, names: Sequence[str]) -> Iterator[Vector]:
    """Yield every norm's weight out of the names of a checkpoint."""
    sizes = {"q_norm": spec.q_size, "k_norm": spec.kv_size} if spec.qk_norm == "full" else {}
    for name in names:
        kind = name.rsplit(".", 1)[-1]
        if kind in ("q_norm", "k_norm"):
            yield Vector(name, sizes.get(kind, spec.head_dim))
        elif kind.endswith("norm"):
            yield Vector(name, spec.hidden_size)
