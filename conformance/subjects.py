"""What certificates are made on: the trained built-in model on its own writing, and random models on random tokens."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checkpoint import Checkpoint
from ..core.types import DecodeParams, Request, RequestOutput
from ..models import BUILTIN
from ..plugins.build import EngineConfig, build_engine
from ..plugins.manager import Plugins
from .models import MODELS, TinyModel, weights, write_checkpoint
from .oracle import Array, Oracle
from .quantized import make_oracle

TRAINED = "isotoken-small"
WRITING = Path(__file__).parent / f"{TRAINED}.tokens.json"
"""Some 10,000 tokens of the trained model, drawn at temperatures from 0.5 to 1, in sequences of 512."""
_SEQUENCES, _LENGTH = 20, 512
_RANDOM_SEQUENCES, _RANDOM_LENGTH = 7, 250  # of each random model


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and the token sequences that every target is given."""

    name: str
    family: str  # subjects of one family are counted together
    model: TinyModel  # the facts, in the oracle's terms
    weights: dict[str, Array]
    folder: Path
    sequences: tuple[tuple[int, ...], ...]

    def oracle(self, quantization: str | None) -> Oracle:
        """The exact decoder, with weights as they are or as quantisation leaves them."""
        return make_oracle(self.model, self.weights, quantization)


def random_subjects(folder: Path) -> list[Subject]:
    """The suite's own models, whose logits lie closer together than a trained model's; written into `folder`."""
    found = []
    for model in MODELS.values():
        dice = random.Random(model.seed)
        many = [[dice.randrange(model.vocab_size) for _ in range(_RANDOM_LENGTH)] for _ in range(_RANDOM_SEQUENCES)]
        path = write_checkpoint(model, folder / model.name)
        sequences = tuple(map(tuple, many))
        found.append(Subject(model.name, "random models", model, weights(model), path, sequences))
    return found


def trained_subject() -> Subject:
    """The built-in model, which is a plain Llama."""
    folder = BUILTIN[TRAINED]
    config = json.loads((folder / "config.json").read_text())
    model = TinyModel(
        name=TRAINED,
        config=config,
        seed=0,
        vocab_size=config["vocab_size"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        rotary_dim=config["head_dim"],
        rope_theta=config["rope_theta"],
        rope=(True,) * config["num_hidden_layers"],
        windows=(None,) * config["num_hidden_layers"],
        norm_eps=config["rms_norm_eps"],
        tied=config["tie_word_embeddings"],
        max_len=config["max_position_embeddings"],
    )
    checkpoint = Checkpoint.open(folder)
    made = {name: checkpoint.tensor(name).astype(np.float64) for name in checkpoint.names()}
    written = json.loads(WRITING.read_text())
    return Subject(TRAINED, TRAINED, model, made, folder, tuple(map(tuple, written["sequences"])))


def write_down() -> dict[str, Any]:
    """Let the trained model write; the seeds are fixed, so any backend in float32 writes the same but for near-ties."""
    folder = BUILTIN[TRAINED]
    said: dict[str, list[int]] = {}

    def publish(outputs: list[RequestOutput]) -> None:
        for output in outputs:
            said[output.request_id] += output.token_ids

    config = EngineConfig(model=str(folder), dtype="float32", max_model_len=_LENGTH, max_num_seqs=_SEQUENCES)
    built = build_engine(config, Plugins.load(), publish)
    for i in range(_SEQUENCES):
        temperature = 0.5 + 0.5 * i / (_SEQUENCES - 1)
        params = DecodeParams(max_tokens=_LENGTH - 1, temperature=temperature, seed=i, ignore_eos=True)
        said[str(i)] = [1]
        built.engine.add(Request(id=str(i), token_ids=[1], num_prompt_tokens=1, params=params))
    built.engine.run()
    built.engine.close()
    return {"model": TRAINED, "sequences": list(said.values())}


def main() -> int:
    """Write the file of the trained model's tokens anew: `python -m isotoken.conformance.subjects`."""
    text = json.dumps(write_down()).replace("[[", "[\n [").replace("], [", "],\n [").replace("]]", "]\n]")
    WRITING.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
