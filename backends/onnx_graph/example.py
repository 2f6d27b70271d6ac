"""Continue a prompt, given as token ids, with an exported graph: needs numpy and onnxruntime and nothing else.

    python example.py 1 15 27 104

prints the 16 most likely token ids, one after the other.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FOLDER = Path(__file__).parent
NUM_NEW_TOKENS = 16


def make_feeds(manifest: dict[str, Any], tokens: list[int], past: int) -> dict[str, Any]:
    """Say to the graph that these tokens follow `past` others in the one row of the cache."""
    ids, length = np.array(tokens, np.int64), len(tokens)
    table, total = np.arange(length)[None], past + length  # one row: its tokens in order, no padding
    feeds = {"logits_indices": np.array([length - 1])}  # logits of the last token only
    if manifest["attention"] == "gqa":
        feeds |= {"input_ids": ids[None], "seqlens_k": np.array([total - 1], np.int32)}
        return feeds | {"total_sequence_length": np.array(total, np.int32)}
    feeds |= {"input_ids": ids, "positions": past + np.arange(length), "write_indices": np.array([past])}
    feeds |= {"kv_indices": table, "flat_indices": np.arange(length)}
    if manifest["attention"] == "standard":
        feeds |= {"query_indices": table, "nonpad_kv_seqlen": np.array([total])}
    return feeds


def make_cache(manifest: dict[str, Any]) -> dict[str, Any]:
    """One row of zeros for the keys and one for the values of each layer."""
    cache = {}
    for port in manifest["inputs"]:
        if port["name"].startswith("past_"):
            sizes = {"B": 1, "M": manifest["max_model_len"]}
            shape = [sizes.get(size, size) for size in port["shape"]]
            cache[port["name"]] = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, port["dtype"]))
    return cache


def read_prompt(arguments: list[str], vocab_size: int) -> list[int]:
    """Read token ids. Ends the program with its usage where there are none, or anything else."""
    if not arguments or not all(argument.isdecimal() and int(argument) < vocab_size for argument in arguments):
        sys.exit(f"{__doc__}\nA token id is a number from 0 to {vocab_size - 1}.")
    return [int(argument) for argument in arguments]


def main() -> None:
    """Feed the prompt, then each token that comes out."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    prompt = read_prompt(sys.argv[1:], manifest["vocab_size"])
    session = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"])
    cache = make_cache(manifest)
    tokens, past = prompt, 0
    output: list[int] = []
    while len(output) < NUM_NEW_TOKENS:
        binding = session.io_binding()
        for name, array in make_feeds(manifest, tokens, past).items():
            binding.bind_cpu_input(name, array)
        for name, value in cache.items():  # the output is the input's memory: new keys and values are written in place
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_", "present_"), value)
        binding.bind_output("logits", "cpu")
        session.run_with_iobinding(binding)
        logits = next(value for value in binding.get_outputs() if value.shape()[-1] == manifest["vocab_size"])
        past += len(tokens)
        tokens = [int(logits.numpy()[-1].argmax())]
        output += tokens
    print(*output)


if __name__ == "__main__":
    main()
