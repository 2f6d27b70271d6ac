"""Write a network as a Hugging Face model folder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from .network import Network
from .tokenizer import END_OF_TURN, save_tokenizer, special_ids


def export(network: Network, tokenizer: Tokenizer, folder: Path, training: dict[str, Any]) -> None:
    """Write weights (bfloat16), configuration, tokenizer and how it was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in network.named_parameters()}
    partial = folder / "model.safetensors.partial"  # then renamed: who has mapped the file before keeps that one
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(folder / "model.safetensors")
    special = special_ids(tokenizer)
    write_json(folder / "config.json", network.config.to_hf(special))
    stops = [special["eos_token_id"], tokenizer.token_to_id(END_OF_TURN)]
    write_json(folder / "generation_config.json", {**special, "eos_token_id": stops})
    write_json(folder / "training.json", training)
    save_tokenizer(tokenizer, folder)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
