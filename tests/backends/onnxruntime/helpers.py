"""Load runners of the onnxruntime backend and drive them through schedules drawn at random."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isotoken.backends.onnxruntime.backend import OnnxRuntimeBackend
from isotoken.conformance.models import MODELS, write_checkpoint
from isotoken.conformance.rig import Array, Rig, Strand
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import ModelRunner, RunnerConfig

MAX_MODEL_LEN = 96
SETTINGS: dict[str, Any] = {
    "dtype": "float32", "device": "cpu", "max_model_len": MAX_MODEL_LEN, "max_num_seqs": 8,
    "max_num_batched_tokens": 512, "block_size": MAX_MODEL_LEN, "num_blocks": 14, "num_threads": 1,
}  # fmt: skip


def checkpoint(model: str, folder: Path) -> Checkpoint:
    """One of the suite's models, written on first use."""
    path = folder / model
    if not path.exists():
        write_checkpoint(MODELS[model], path)
    return Checkpoint.open(path)


def load(source: Checkpoint, **settings: Any) -> ModelRunner:
    return OnnxRuntimeBackend().load(source, RunnerConfig(**(SETTINGS | settings)))


@dataclass(frozen=True)
class Story:
    """A prompt, and the tokens that follow it one by one."""

    prompt: list[int]
    output: list[int]

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.output


def stories(dice: random.Random, count: int, vocab_size: int) -> list[Story]:
    def words(low: int, high: int) -> list[int]:
        return [dice.randrange(vocab_size) for _ in range(dice.randint(low, high))]

    return [Story(words(1, 40), words(0, 12)) for _ in range(count)]


def alone(runner: ModelRunner, story: Story) -> Array:
    """Logits [1 + outputs, V] of a story that nobody disturbs: its prompt at once, then decodes."""
    rig = Rig(runner)
    strand = rig.strand(story.tokens)
    return rig.feed(strand, [len(story.prompt), *[1] * len(story.output)], all_rows=False)


def together(runner: ModelRunner, told: list[Story], dice: random.Random) -> list[Array]:
    """The same logits from steps that take some of the stories, in any order, rows and chunks."""
    free = dice.sample(range(runner.info.num_blocks), runner.info.num_blocks)
    strands = [Strand(s.tokens, [free.pop()], row_id=i) for i, s in enumerate(told)]
    rig = Rig(runner)
    found: list[list[Array]] = [[] for _ in told]
    while unfinished := [i for i, s in enumerate(strands) if s.computed < len(s.tokens)]:
        chosen = dice.sample(unfinished, dice.randint(1, min(len(unfinished), runner.info.max_num_seqs)))
        work = []
        for i in chosen:
            left = len(told[i].prompt) - strands[i].computed
            count = dice.choice([1, 2, 3, left, dice.randint(1, left)]) if left > 0 else 1
            count = min(count, left) if left > 0 else 1
            work.append((strands[i], count, int(count >= left)))
        for i, rows in zip(chosen, rig.step(work), strict=True):
            found[i] += list(rows)
    return [np.stack(rows) for rows in found]
