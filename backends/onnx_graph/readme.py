"""The README of an exported graph: its inputs and outputs, said for somebody who has only that folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SIZES = {
    "T": "tokens of a run",
    "B": "rows of the cache (sequences) in a run",
    "S": "most new tokens of a row",
    "L": "tokens that get logits",
    "M": "positions of a row of the cache, at least max_model_len",
    "B+1": "one more than B",
    "blocks": "most blocks of a row",
    "num_blocks": "blocks of the cache",
    "block_size": "tokens in a block",
}
MEANINGS = {
    "input_ids": "the new tokens",
    "logits_indices": "which of the tokens, counted over all rows, get logits",
    "positions": "the position of each token in its sequence",
    "write_indices": "the position of each row's first new token",
    "kv_indices": "for each row the numbers of its new tokens among the T, from the left (padding: any)",
    "query_indices": "the same from the right: a row's last token in the last column",
    "flat_indices": "b * S + s: where each token's query stands in that table",
    "nonpad_kv_seqlen": "tokens of each row after this run",
    "seqlens_k": "tokens of each row after this run, less one",
    "total_sequence_length": "the most tokens of a row after this run",
    "cumulative_sequence_length": "where each row's tokens begin among the T, and T at the end",
    "past_seqlens": "tokens of each row before this run",
    "block_table": "the blocks of each row, in order",
    "slot_mapping": "block * block_size + offset: where each token's keys and values go",
    "attention_metadata": "in CPU memory: bounds of the most new tokens, the most and the fewest keys of a row",
    "logits": "of each token that was asked for",
}
RUNS = {
    "gqa": (
        "A run takes one new token of each of B rows, or S new tokens of one row (B = 1). ONNX Runtime only: the graph "
        "uses its operator GroupQueryAttention."
    ),
    "standard": (
        "A run takes any number of new tokens of each row, prompts beside decodes. Rows are written padding included, "
        "so M must be at least the largest write index + S."
    ),
    "standard-mask": (
        "A run takes any number of new tokens of each row, prompts beside decodes. Rows are written padding included, "
        "so M must be at least the largest write index + S. In this form queries lie in the table as kv_indices says."
    ),
    "paged": (
        "A run takes any number of new tokens of each row. ONNX Runtime with CUDA only: the graph uses its operator "
        "PagedAttention."
    ),
}


def render(manifest: Mapping[str, Any]) -> str:
    """Return the README for a manifest (see exporter.describe)."""
    quantised = f", weights {manifest['quantization']}" if manifest["quantization"] else ""
    used = {size for port in (*manifest["inputs"], *manifest["outputs"]) for size in port["shape"]}
    example = "" if manifest["attention"] == "paged" else (
        "\n`example.py` is a whole program: `python example.py 1 15 27` continues a prompt given as token ids.\n"
    )  # fmt: skip
    return f"""# {manifest["architecture"]} as an ONNX graph

Form `{manifest["attention"]}`, computed in {manifest["dtype"]}, keys and values in {manifest["kv_dtype"]}{quantised}.
`model.onnx` holds the graph and needs the weights beside it. `manifest.json` says the same as this page to programs.
{example}
{RUNS[manifest["attention"]]}

Bind each output `present_key.i`, `present_value.i` to the memory of the input `past_key.i`, `past_value.i`: the new
keys and values are then written in place. Fill a new cache with zeros.

Sizes: {"; ".join(f"{size}: {meaning}" for size, meaning in SIZES.items() if size in used)}.

| Input | Type | Shape | |
|---|---|---|---|
{_rows(manifest["inputs"])}

| Output | Type | Shape | |
|---|---|---|---|
{_rows(manifest["outputs"])}

Longest sequence: {manifest["max_model_len"]} tokens. Ends of sequence: {manifest["eos_token_ids"]}.
"""


def _rows(ports: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for port in ports:
        name, _, layer = port["name"].partition(".")
        if layer not in ("", "0"):
            continue  # as layer 0
        shown = f"{name}.i" if layer else name
        meaning = "for each layer i" if layer else MEANINGS[name]
        lines.append(f"| `{shown}` | {port['dtype']} | {port['shape']} | {meaning} |".replace("'", ""))
    return "\n".join(lines)
