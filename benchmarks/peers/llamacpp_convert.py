"""Write a Llama checkpoint as DIR/model.gguf, under a peer's Python: MODEL DIR [llama-quantize KIND]

Only for the benchmarks' own models, whose tokenizer llama.cpp's converter does not know: prompts are token ids.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def main(model: str, target: str, *quantise: str) -> int:
    """Write it in bfloat16, then quantise it where asked to."""
    folder = Path(target)
    folder.mkdir(parents=True)
    plain = folder / ("bf16.gguf" if quantise else "model.gguf")
    write(Path(model), plain)
    if quantise:
        tool, kind = quantise
        subprocess.run([tool, str(plain), str(folder / "model.gguf"), kind], check=True)
        plain.unlink()
    return 0


def write(model: Path, path: Path) -> None:
    """Matrices in bfloat16, norms in float32."""
    gguf = importlib.import_module("gguf")
    config = json.loads((model / "config.json").read_text())
    out = gguf.GGUFWriter(str(path), "llama")
    heads, kv_heads, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    out.add_name(model.name)
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(size)
    out.add_value_length(size)
    out.add_rope_dimension_count(size)
    out.add_rope_freq_base(config["rope_theta"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_vocab_size(config["vocab_size"])
    out.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    _write_tokenizer(gguf, out, config["vocab_size"])
    for name, values in tensors(model / "model.safetensors"):
        _write_tensor(gguf, out, name, values, {"q_proj": heads, "k_proj": kv_heads})
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def tensors(path: Path) -> list[tuple[str, Any]]:
    """Every tensor of a file in bfloat16, as uint16."""
    data = np.memmap(path, np.uint8, "r")
    size = int(data[:8].view(np.uint64)[0])
    header = json.loads(bytes(data[8 : 8 + size]))
    header.pop("__metadata__", None)
    found = []
    for name, entry in header.items():
        begin, end = (8 + size + at for at in entry["data_offsets"])
        found.append((name.removesuffix(".weight"), data[begin:end].view(np.uint16).reshape(entry["shape"])))
    return found


def _write_tensor(gguf: Any, out: Any, name: str, values: Any, rotated: dict[str, int]) -> None:
    if name in TOP:
        named = TOP[name]
    else:
        _, _, layer, rest = name.split(".", 3)
        named = f"blk.{layer}.{NAMES[rest]}"
        if num_heads := rotated.get(rest.rsplit(".", 1)[-1]):  # its heads have rotated pairs side by side
            values = values.reshape(num_heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    if values.ndim == 1:
        out.add_tensor(f"{named}.weight", (values.astype(np.uint32) << 16).view(np.float32))
    else:
        raw = np.ascontiguousarray(values).view(np.uint8)
        out.add_tensor(f"{named}.weight", raw, raw_dtype=gguf.GGMLQuantizationType.BF16)


def _write_tokenizer(gguf: Any, out: Any, vocab_size: int) -> None:
    """Stand-ins: llama.cpp wants texts, and is never shown any."""
    kind = gguf.TokenType
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list([f"t{i}" for i in range(vocab_size)])
    out.add_token_types([kind.CONTROL if i < 3 else kind.NORMAL for i in range(vocab_size)])
    out.add_token_merges(["t 0"])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    out.add_add_bos_token(False)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
