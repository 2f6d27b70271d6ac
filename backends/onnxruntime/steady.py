"""Steady decoding: the next step is mostly the last one again, each request one position further."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...core.batch import Batch
from .bindings import Window
from .forms import Onward

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


class Steady:
    """A step in which every request decoded, with logits, in a window without holes, and those that go on with it.

    A batch that does needs nothing worked out: each token follows one that gave logits, and goes to the row where its
    block lies. Between two steps the weights have driven everything else out of the caches, so that each numpy
    operation costs ten times what it costs in a loop: there are as few as can be.
    """

    def __init__(self, batch: Batch, blocks: Int64, window: Window, places: Int64) -> None:
        """Take note of a step: `blocks` [N] in the order of the batch, and their `places` in the window."""
        self.blocks, self._window, self._places = blocks, window, places
        self._where = slice(None) if (places == np.arange(len(places))).all() else places
        self._longest = int(batch.seq_lens.max())
        self._starts = batch.query_start_loc.tobytes()
        self._first_blocks = batch.block_table[:, 0].tobytes()
        self._next_lens = batch.seq_lens + 1

    @property
    def ends(self) -> Int64:
        """The lengths [N] of the requests after the last step that was run."""
        return self._next_lens.astype(np.int64) - 1

    def goes_on(self, batch: Batch) -> bool:
        """Whether the batch is one more token of each request, with logits, and nothing else."""
        count = len(self.blocks)
        return (
            len(batch.input_ids) == len(batch.logits_indices) == count == len(batch.seq_lens)
            and not len(batch.block_copies)
            and batch.seq_lens.tobytes() == self._next_lens.tobytes()
            and batch.block_table[:, 0].tobytes() == self._first_blocks
            and batch.query_start_loc.tobytes() == self._starts
        )

    def run(self, batch: Batch, logits: Float32) -> None:
        """Compute a batch that goes on; `logits` [N, V] are where those of the last step were."""
        longest = self._longest + 1
        self._window.run_on(Onward(batch.input_ids, batch.positions, longest, self._places, self._where), logits)
        self._longest = longest
        self._next_lens += 1
