"""The runner: a compiled decoder graph and its K/V memory, one row for each request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ...core.batch import Batch
from ...core.interfaces import RunnerInfo, Sampler
from .bindings import Bindings, Window
from .memory import trim_heap
from .placement import Placement, Rows
from .progress import Progress
from .steady import Steady

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]

SCORES_BYTES = 128 << 20
"""Of attention scores [heads, S, context] at once: longer chunks are cut, which changes no bit."""

MIN_CHUNK = 16

_ALL = slice(None)


class OnnxRuntimeRunner:
    """Runs batches. Not thread-safe.

    GroupQueryAttention takes one new token for each of several neighbouring rows, or several new tokens of one row. So
    all decodes of a batch are one run over the window of rows that holds them, and each chunk of a prompt, and each
    verification, is a run of its own.
    """

    def __init__(
        self,
        bindings: Bindings,
        rows: Rows,
        info: RunnerInfo,
        *,
        num_heads: int,
        num_parameters: int,
        sampler: Sampler | None,
    ) -> None:
        self.info = info
        self.sampler = sampler
        self._rows = rows
        self._num_heads = num_heads
        self._bindings: Bindings | None = bindings
        self._placement = Placement(rows, info.num_blocks, num_parameters)
        self._progress = Progress(info.num_blocks)
        self._steady: Steady | None = None  # the last step, if the next may be one more of its kind
        self._logits: Float32 = np.empty((info.max_num_logits, info.vocab_size), np.float32)

    def forward(self, batch: Batch) -> Float32:
        """Run one step; float32 logits [L, vocab_size], valid until the next."""
        if self._bindings is None:
            raise RuntimeError("backend onnxruntime: the runner is closed")
        logits = self._logits[: len(batch.logits_indices)]
        if self._steady is not None:
            if self._steady.goes_on(batch):
                self._steady.run(batch, logits)
                return logits
            self._leave(self._steady)
            self._steady = None
        for source, target, num_tokens in batch.block_copies.tolist():
            self._placement.copy(source, target, num_tokens)
            self._progress.forget(target)
        blocks = batch.block_table[:, 0].astype(np.int64)  # [N]
        lens = batch.query_lens
        decoding = (lens == 1) & self._progress.follows_logits(blocks, batch.seq_lens - lens)
        if decoding.any():
            self._decode(batch, np.flatnonzero(decoding), blocks[decoding], logits)
        for request in np.flatnonzero(~decoding).tolist():
            if lens[request]:
                self._compute_chunks(batch, request, int(blocks[request]), logits)
        return logits

    def close(self) -> None:
        """Give back the weights and the rows."""
        if self._bindings is not None:
            self._bindings.clear()
            self._bindings = self._steady = None
        self._rows.close()
        trim_heap()
        self._logits = np.empty((0, 0), np.float32)

    def _leave(self, steady: Steady) -> None:
        """Make up for what steady steps left undone."""
        ends = steady.ends
        self._placement.advance(steady.blocks, ends)
        self._progress.note_decodes(steady.blocks, ends - 1)

    def _decode(self, batch: Batch, requests: Int64, blocks: Int64, logits: Float32) -> None:
        """Compute one token of each of some requests [n] in one run."""
        tokens = batch.query_start_loc[requests]  # [n] places in the batch's T tokens
        ends = batch.seq_lens[requests].astype(np.int64)
        first, count, places = self._placement.window(blocks, ends)
        ids = np.zeros((count, 1), np.int64)
        ids[places, 0] = batch.input_ids[tokens]
        wanted, asked = _rows_of(batch.logits_indices, tokens)
        in_order = len(wanted) == 0 or int(wanted[-1] - wanted[0]) == len(wanted) - 1
        out = logits[wanted[0] : wanted[-1] + 1] if len(wanted) and in_order else np.empty_like(logits[wanted])
        window = self._window(first, count)
        with self._holes_kept(first, count, places):
            window.run(ids, places, ends, places[asked], out)
        if not in_order:
            logits[wanted] = out
        if len(wanted) == len(tokens):
            self._progress.note_decodes(blocks, ends - 1)
            if count == len(batch.input_ids) == len(places) == len(batch.seq_lens):
                self._steady = Steady(batch, blocks, window, places)
            return
        for block, end, gave in zip(blocks.tolist(), ends.tolist(), asked.tolist(), strict=True):
            self._progress.note(block, end - 1, end, int(gave))

    @contextmanager
    def _holes_kept(self, first: int, count: int, places: Int64) -> Iterator[None]:
        """Keep the rows of a window that nobody asked for as they are: a run writes a token to position 0 of each."""
        if count == len(places):
            yield
            return
        holes = np.setdiff1d(np.arange(count), places, assume_unique=True) + first
        kept = self._rows.array[:, holes, :, 0]  # a copy
        try:
            yield
        finally:
            self._rows.array[:, holes, :, 0] = kept

    def _compute_chunks(self, batch: Batch, request: int, block: int, logits: Float32) -> None:
        """Compute several tokens of one request, or a single one that is no decode."""
        begin, stop = batch.query_start_loc[request : request + 2].tolist()
        end = int(batch.seq_lens[request])
        start = end - (stop - begin)
        row = self._placement.write(block, start, end)
        size = max(SCORES_BYTES // (4 * self._num_heads * end), MIN_CHUNK)
        low, high = np.searchsorted(batch.logits_indices, (begin, stop)).tolist()
        for piece in range(begin, stop, size):
            piece_stop = min(piece + size, stop)
            first, last = np.searchsorted(batch.logits_indices, (piece, piece_stop)).tolist()
            self._compute_chunk(
                row,
                start + piece - begin,
                batch.input_ids[piece:piece_stop],
                batch.logits_indices[first:last] - piece,
                logits[first:last],
            )
        self._progress.note(block, start, end, high - low)

    def _compute_chunk(self, row: int, start: int, ids: Int32, indices: Int32, logits: Float32) -> None:
        """Run tokens `ids` [S] from position `start` of a row.

        A single token is run with a second one behind it, which nobody will look at: the kernel for one token rounds
        differently from the one for several.
        """
        if len(ids) == 1:
            ids = ids.repeat(2)
        ends = np.array([start + len(ids)])
        self._window(row, 1).run(ids[None].astype(np.int64), _ALL, ends, indices.astype(np.int64), logits)

    def _window(self, first: int, count: int) -> Window:
        if self._bindings is None:
            raise RuntimeError("backend onnxruntime: the runner is closed")
        return self._bindings.window(first, count)


def _rows_of(logits_indices: Int32, tokens: Int32) -> tuple[Int64, Bool]:
    """Return which logits rows [m] belong to `tokens` [n], both rising, and which of the tokens have one [n]."""
    places = np.searchsorted(logits_indices, tokens)
    asked = np.zeros(len(tokens), np.bool_)
    inside = places < len(logits_indices)
    asked[inside] = logits_indices[places[inside]] == tokens[inside]
    return places[asked], asked
