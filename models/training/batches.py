"""Batches of packed documents; each step's batch is a function of (seed, step), so training can stop and resume."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .corpus import documents

TOKENS_PER_STEP = 8192
ROW_LENGTHS = (256, 512, 2048)
ROW_WEIGHTS = (0.65, 0.23, 0.12)


@dataclass(frozen=True, slots=True)
class Batches:
    """Draws batches; a row begins with a new document and is cut where it is full."""

    tokenizer: Tokenizer
    seed: int | str
    late_from: int = 500  # the step at which the late skills join

    def row_length(self, step: int) -> int:
        """Return the length of the rows at a step."""
        return Random(f"row length {self.seed} {step}").choices(ROW_LENGTHS, ROW_WEIGHTS)[0]

    def batch(self, step: int) -> Tensor:
        """Return token ids [rows, length + 1] int64 (targets are the inputs shifted by one)."""
        length = self.row_length(step)
        source = documents(f"{self.seed} {step}", long=length == max(ROW_LENGTHS), late=step >= self.late_from)
        rows = [self._row(source, length + 1) for _ in range(TOKENS_PER_STEP // length)]
        return torch.tensor(rows, dtype=torch.int64)

    def _row(self, source: Iterator[str], length: int) -> list[int]:
        ids: list[int] = []
        while len(ids) < length:
            text = next(source)
            ids += self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids[:length]
