"""The null runner: knows each next token at once, and writes logits out only for those who look at them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.batch import Batch, Int32, Sampled, SamplingRows
from ...core.fast_sampler import FastSampler
from ...core.interfaces import Logits, RunnerInfo, Sampler
from ...core.sampling import NOISE_SPAN, edits_nothing
from .words import Words

PEAK = np.float32(1000.0)
"""The logit of the token that comes next; all others have 0."""


class PeakedLogits:
    """Logits [L, V] of which only the best token of each row is kept; an array of them is made when asked for."""

    def __init__(self, tokens: Int32, vocab_size: int) -> None:
        self.tokens = tokens  # [L]
        self.shape = (len(tokens), vocab_size)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        logits = np.zeros(self.shape, dtype or np.float32)
        logits[np.arange(len(self.tokens)), self.tokens] = PEAK
        return logits


class PeakSampler:
    """Takes the best token where nothing could beat it, which is nearly always, and else draws by the rules."""

    def __init__(self) -> None:
        self._fast = FastSampler()

    def sample(self, logits: Logits, rows: SamplingRows) -> Sampled:
        """Draw (or score) one token for each of the L rows."""
        if isinstance(logits, PeakedLogits) and _peak_wins(rows):
            return Sampled(logits.tokens)
        return self._fast.sample(np.asarray(logits), rows)


def _peak_wins(rows: SamplingRows) -> bool:
    """Whether no noise lifts another token over the peak, and nobody wants to know more than the token."""
    return bool(
        edits_nothing(rows)
        and rows.temperature.max() <= PEAK / (2 * NOISE_SPAN)
        and rows.target_ids.max() < 0
        and rows.num_logprobs.max() == -2
    )


class NullRunner:
    """Stands where a model would. `step_s`: how long it pretends to compute, 0 for not at all."""

    sampler: Sampler | None

    def __init__(self, info: RunnerInfo, words: Words, step_s: float = 0.0) -> None:
        self.info = info
        self.sampler = PeakSampler()
        self._words = words
        self._step_s = step_s
        self._due = 0.0  # time.monotonic() when the step that runs may end

    def forward(self, batch: Batch) -> PeakedLogits:
        """Return the logits of one step; steps follow each other in the time that was asked for, or more slowly."""
        if self._step_s:
            now = time.monotonic()
            self._due = max(self._due, now - self._step_s) + self._step_s
            time.sleep(max(0.0, self._due - now))
        rows = batch.logits_indices
        return PeakedLogits(self._words.after(batch.input_ids[rows], batch.positions[rows]), self.info.vocab_size)

    def close(self) -> None:
        """There is nothing to give back."""
