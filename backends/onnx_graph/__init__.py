"""The ONNX graph of a decoder, built from its DecoderSpec: what ONNX Runtime and TensorRT both run.

`build_graph(checkpoint, GraphOptions(...)) -> Graph` in milliseconds; no weight is copied unless it is to be quantised.

Ports. T tokens of a run, B rows of the cache, S most new tokens of a row, L logits rows, M positions of a row
(GraphOptions.row_len fixes it).
Every form has:
    logits_indices   [L] int64       which of the T tokens (flat, in order) get logits; L may be 0
    past_key.{i}, past_value.{i}     the cache of layer i, in kv_dtype
    logits           [L, V] float32  whatever the compute dtype
    present_key.{i}, present_value.{i}   to be bound to the very addresses of past_key.{i}, past_value.{i}:
                                     the new keys and values are then written in place, and nothing is copied

`gqa` (ONNX Runtime's GroupQueryAttention; CPU in float32 and float16, CUDA in float16 and bfloat16):
    input_ids        [B, S] int64    B rows with one new token each, or one row (B = 1) with S new tokens;
                                     rows of different length (padded on the right) only where nothing is cached yet
    seqlens_k        [B] int32       tokens of the row after this run, less one
    total_sequence_length [] int32   the largest of them, not less one; in CPU memory
    past_*, present_* [B, kv_heads, M, D]
    The T = B * S tokens are numbered row by row. A row holds position p of its request at index p.

`standard` (TensorScatter and Attention of opset 24) and `standard-mask` (only operators that TensorRT's parser knows),
whose rows may bring different numbers of new tokens, decodes beside chunks of prompts:
    input_ids        [T] int64       the new tokens of all rows, one row after the other
    positions        [T] int64       of each token in its request
    write_indices    [B] int64       position of each row's first new token: where its keys and values go
    kv_indices       [B, S] int64    numbers of the row's new tokens among the T, from the left; padding repeats any
                                     valid number
    query_indices    [B, S] int64    only `standard`: the same, but from the right: a row's last token in column S - 1.
                                     In `standard-mask` queries lie as kv_indices says.
    flat_indices     [T] int64       b * S + s: where token t's query stands in the table above (query_indices, or
                                     kv_indices in `standard-mask`)
    nonpad_kv_seqlen [B] int64       only `standard`: tokens of the row after this run
    past_*, present_* [B, kv_heads, M, D]
    S rows are written from write_indices on, padding included, so M must be at least max(write_indices) + S; what
    padding writes stands after the row's end, is never looked at and is overwritten later. Allocate rows of
    max_model_len + the longest chunk - 1. `ragged_inputs(query_lens, past_lens, masked=...)` makes all of these arrays.

`paged` (ONNX Runtime's PagedAttention; CUDA, float16 and bfloat16): see paged.py.

Weights lie outside of the graph: `Graph.weights` names for each initializer the piece of the checkpoint's file that
holds it, or an array (quantised weights, long rope tables). To give them to ONNX Runtime without a copy of the files:

    files = graph.files()  # file name -> mapped bytes; must outlive the session
    options.add_external_initializers_from_files_in_memory(
        list(files), list(files.values()), [file.size for file in files.values()]
    )
    options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
    session = onnxruntime.InferenceSession(graph.to_bytes(), options, ...)
    forget_pages(files)

Measured with 118M parameters on onnxruntime 1.31, one thread: anonymous memory that stays after loading (at its peak).
398 MB (500) for a bfloat16 checkpoint, 383 MB (383) for a float32 one, both computed in float32: 376 MB are the
matrices as the runtime repacks them, and the embedding table stays in the file. Loading takes 1.1 to 1.3 s either way,
casting bfloat16 included. Without the configuration entry the runtime copies what it does not repack: 453 and 565 MB.
A graph saved and loaded from its folder takes as little as the above (397 and 383 MB). Quantised weights are repacked
too (int4: 77 MB): of a saved graph nothing else stays, while arrays in memory (another 76 MB) must outlive the session
and are quantised anew for each, in 0.7 s.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decoder import build_graph
    from .graph import Graph, forget_pages
    from .inputs import ragged_inputs
    from .options import GraphOptions
    from .writer import Port

__all__ = ["Graph", "GraphOptions", "Port", "build_graph", "forget_pages", "ragged_inputs"]

_HOME = {
    "Graph": "graph",
    "GraphOptions": "options",
    "Port": "writer",
    "build_graph": "decoder",
    "forget_pages": "graph",
    "ragged_inputs": "inputs",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: the plugin of this package must load without onnx_ir."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
