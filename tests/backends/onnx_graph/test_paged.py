"""The form `paged` has no kernel on the CPU: here numpy stands in for the one operator, by its documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from isotoken.backends.onnx_graph import Graph, GraphOptions, build_graph
from isotoken.core.checkpoint import Checkpoint
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from ..families import Case
from .runtime import worst_difference

CaseOf = Callable[[str], Case]
Array = NDArray[Any]
BLOCK_SIZE, NUM_BLOCKS = 8, 40


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """x [heads, D], cos and sin [rotary_dim / 2]."""
    half = len(cos)
    first, second, rest = x[:, :half], x[:, half : 2 * half], x[:, 2 * half :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


class PagedAttention(OpRun):
    """Attention over blocks, one token after the other; the caches are written in place."""

    op_domain = "com.microsoft"

    def _run(
        self, query: Array, key: Array, value: Array, keys: Array, values: Array, starts: Array, past: Array,
        table: Array, cos: Array | None, sin: Array | None, slots: Array, *rest: Any, num_heads: int,
        kv_num_heads: int, scale: float, do_rotary: int = 0, local_window_size: int = -1, softcap: float = 0.0,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        metadata = rest[-1]
        assert metadata[0] >= np.diff(starts).max()
        assert metadata[1] >= (past + np.diff(starts)).max()
        size, out = keys.shape[-1], np.zeros_like(query)
        for row in range(len(past)):
            for t in range(starts[row], starts[row + 1]):
                position = int(past[row] + t - starts[row])
                q = query[t].reshape(num_heads, size).astype(np.float32)
                k = key[t].reshape(kv_num_heads, size).astype(np.float32)
                if do_rotary:
                    assert cos is not None and sin is not None
                    q, k = (rotate(each, cos[position], sin[position]) for each in (q, k))
                block, offset = divmod(int(slots[t]), keys.shape[1])
                assert block == table[row, position // keys.shape[1]]
                keys[block, offset], values[block, offset] = k, value[t].reshape(kv_num_heads, size)
                first = 0 if local_window_size < 0 else max(0, position + 1 - local_window_size)
                seen_keys, seen_values = (
                    cache[table[row]].reshape(-1, kv_num_heads, size)[first : position + 1].astype(np.float32)
                    for cache in (keys, values)
                )
                grouped = q.reshape(kv_num_heads, -1, size)
                scores = np.einsum("kgd,nkd->kgn", grouped, seen_keys) * scale
                if softcap:
                    scores = softcap * np.tanh(scores / softcap)
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                weights /= weights.sum(-1, keepdims=True)
                out[t] = np.einsum("kgn,nkd->kgd", weights, seen_values).reshape(-1)
        return out, keys, values


class Blocks:
    """A graph with a cache of blocks, handed to rows in an order that is no order."""

    def __init__(self, graph: Graph, path: Path) -> None:
        self.evaluator = ReferenceEvaluator(onnx.load(path), new_ops=[PagedAttention])
        shapes = {"num_blocks": NUM_BLOCKS, "block_size": BLOCK_SIZE}
        self.cache = {
            port.name: np.full([shapes.get(str(size), size) for size in port.shape], np.nan, port.dtype)
            for port in graph.inputs
            if port.name.startswith(("past_key", "past_value"))
        }
        order = np.random.default_rng(0).permutation(NUM_BLOCKS).astype(np.int32)
        self.tables = order.reshape(4, -1)

    def step(self, chunks: list[list[int]], past: list[int]) -> list[Array]:
        lens = [len(chunk) for chunk in chunks]
        positions = np.concatenate([np.arange(p, p + n) for p, n in zip(past, lens, strict=True)])
        rows = np.repeat(np.arange(len(chunks)), lens)
        slots = self.tables[rows, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
        feeds = {
            "input_ids": np.concatenate(chunks).astype(np.int64),
            "logits_indices": np.arange(sum(lens)),
            "cumulative_sequence_length": np.cumsum([0, *lens]).astype(np.int32),
            "past_seqlens": np.array(past, np.int32),
            "block_table": self.tables[: len(chunks)],
            "slot_mapping": slots.astype(np.int32),
            "attention_metadata": np.array([max(lens), max(map(sum, zip(past, lens, strict=True))), 1], np.int32),
        }
        logits = self.evaluator.run(["logits"], feeds | self.cache)[0]
        return np.split(logits, np.cumsum(lens)[:-1])


@pytest.mark.parametrize("family", ["llama-biases", "phi3", "gemma2", "qwen3", "smollm3-window"])
def test_a_paged_graph_gives_transformers_logits(family: str, family_case: CaseOf, tmp_path: Path) -> None:
    case = family_case(family)
    options = GraphOptions(attention="paged", dtype="float16", max_model_len=case.max_model_len)
    graph = build_graph(Checkpoint.open(case.folder), options)
    blocks = Blocks(graph, graph.save(tmp_path))
    sequences, expected = case.sequences[-4:], case.logits[-4:]
    past = [0, 0, 0, 0]
    for lens in ([11, 3, 17, 1], [1, 9, 1, 14], [1, 1, 1, 1]):  # prompts beside decodes
        chunks = [sequence[p : p + n] for sequence, p, n in zip(sequences, past, lens, strict=True)]
        logits = blocks.step(chunks, past)
        wanted = [want[p : p + n] for want, p, n in zip(expected, past, lens, strict=True)]
        assert worst_difference(logits, wanted) <= 1e-2
        past = [p + n for p, n in zip(past, lens, strict=True)]
