"""A second oracle, made by another road: a plain torch module written down here, exported by torch.onnx.export."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from isotoken.backends.onnx_graph import GraphOptions, build_graph
from isotoken.core.checkpoint import Checkpoint
from torch import nn
from torch.nn import functional

from ..families import Case
from .runtime import Rows, session_in_memory, session_options, worst_difference

CaseOf = Callable[[str], Case]


class PlainLlama(nn.Module):
    """A Llama over a whole sequence, without a cache, in the fewest words; weights as in the file."""

    def __init__(self, weights: dict[str, torch.Tensor], layers: int, heads: int, kv_heads: int, eps: float) -> None:
        super().__init__()
        self.layers, self.heads, self.kv_heads, self.eps = layers, heads, kv_heads, eps
        self.names = {name: name.replace(".", "_") for name in weights}
        for name, weight in weights.items():
            self.register_buffer(self.names[name], weight)

    def get(self, name: str) -> torch.Tensor:
        return getattr(self, self.names[name])  # type: ignore[no-any-return]

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.get(name)

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        angles = torch.outer(torch.arange(x.shape[-2]).float(), 10000.0 ** (-torch.arange(half).float() / half))
        first, second = x[..., :half], x[..., half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def attention(self, x: torch.Tensor, prefix: str) -> torch.Tensor:
        def heads(which: str, count: int) -> torch.Tensor:
            return (x @ self.get(f"{prefix}{which}_proj.weight").T).unflatten(-1, (count, -1)).transpose(0, 1)

        query, key = self.rotate(heads("q", self.heads)), self.rotate(heads("k", self.kv_heads))
        value, group = heads("v", self.kv_heads), self.heads // self.kv_heads
        scores = query @ key.repeat_interleave(group, 0).transpose(1, 2) * query.shape[-1] ** -0.5
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        attended = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value.repeat_interleave(group, 0)
        return attended.transpose(0, 1).flatten(1) @ self.get(f"{prefix}o_proj.weight").T

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        x = self.get("model.embed_tokens.weight")[token_ids]
        for i in range(self.layers):
            prefix = f"model.layers.{i}."
            x = x + self.attention(self.norm(x, f"{prefix}input_layernorm.weight"), f"{prefix}self_attn.")
            y = self.norm(x, f"{prefix}post_attention_layernorm.weight")
            gate, up, down = (self.get(f"{prefix}mlp.{name}_proj.weight").T for name in ("gate", "up", "down"))
            x = x + (functional.silu(y @ gate) * (y @ up)) @ down
        return self.norm(x, "model.norm.weight") @ self.get("lm_head.weight").T


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
@pytest.mark.slow
def test_torchs_own_export_gives_the_same_logits(family_case: CaseOf, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    case = family_case("llama")
    checkpoint = Checkpoint.open(case.folder)
    spec = checkpoint.spec
    module = PlainLlama(
        load_file(case.folder / "model.safetensors"), spec.num_layers, spec.num_heads, spec.num_kv_heads, spec.norm_eps
    )
    sequence = case.sequences[4]
    exported = tmp_path / "exported.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.tensor(sequence),), exported, input_names=["ids"], output_names=["logits"], dynamo=True,
            verbose=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(exported, session_options(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["logits"], {"ids": np.array(sequence)})
    assert worst_difference([expected], [case.logits[4]]) <= 2e-5  # the oracles agree with each other
    for form in ("gqa", "standard", "standard-mask"):
        graph = build_graph(checkpoint, GraphOptions(attention=form))
        ours, _files = session_in_memory(graph)
        logits = Rows(graph, ours, 1, case.max_model_len).step({0: sequence})
        assert worst_difference(logits, [expected]) <= 2e-5
