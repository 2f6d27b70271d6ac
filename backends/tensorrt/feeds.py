"""What a run feeds the graph: tokens, positions and places, padded as the run's profile asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...core.batch import Batch, Int64
from ..onnx_graph import Port
from ..rows import Run
from .device import ALIGNMENT, Bytes, Device
from .profiles import Profile

Feeds = Mapping[str, Int64]


def make_feeds(batch: Batch, run: Run, spare: int) -> Feeds:
    """Return the inputs of a run, but the cache: see backends/onnx_graph, form standard-mask.

    Rows of the window that hold no request compute a token 0 that nobody looks at, and write it to `spare`, the first
    position that no request reaches. A run of one token a row has such a token for each hole, so that its shapes
    depend on the window alone; a wider one has a single token for all of them. Logits: at least one row.
    """
    if run.width == 1:
        return _decode(batch, run, spare)
    lens, starts = run.query_lens, np.cumsum(run.query_lens) - run.query_lens
    num_tokens = int(lens.sum())
    columns = np.arange(run.width)
    kv_indices = np.full((run.num_rows, run.width), num_tokens, np.int64)
    kv_indices[run.rows] = starts[:, None] + np.minimum(columns, lens[:, None] - 1)
    write_indices = np.full(run.num_rows, spare, np.int64)
    write_indices[run.rows] = run.context_lens
    places = np.repeat(run.rows * run.width - starts, lens) + np.arange(num_tokens)
    feeds = {
        "input_ids": batch.input_ids[run.tokens].astype(np.int64),
        "positions": batch.positions[run.tokens].astype(np.int64),
        "logits_indices": run.wanted if len(run.wanted) else np.zeros(1, np.int64),
        "write_indices": write_indices,
        "kv_indices": kv_indices,
        "flat_indices": places,
    }
    holes = np.setdiff1d(np.arange(run.num_rows), run.rows)
    if len(holes):
        for name, value in (("input_ids", 0), ("positions", 0), ("flat_indices", int(holes[0]) * run.width)):
            feeds[name] = np.append(feeds[name], value)
    return feeds


def _decode(batch: Batch, run: Run, spare: int) -> Feeds:
    """One token and one row of logits for each row of the window."""
    input_ids, positions = np.zeros((2, run.num_rows), np.int64)
    write_indices = np.full(run.num_rows, spare, np.int64)
    input_ids[run.rows] = batch.input_ids[run.tokens]
    positions[run.rows] = write_indices[run.rows] = run.context_lens
    every = np.arange(run.num_rows)
    return {
        "input_ids": input_ids,
        "positions": positions,
        "logits_indices": every,
        "write_indices": write_indices,
        "kv_indices": every[:, None],
        "flat_indices": every,
    }


def logits_places(run: Run) -> Int64:
    """Return where in the logits that a run makes the `run.logits` of the batch are."""
    return run.rows[run.wanted] if run.width == 1 else np.arange(len(run.wanted))


class Inputs:
    """One piece of device memory with a place for every input but the cache, each large enough for all profiles."""

    def __init__(self, device: Device, ports: Sequence[Port], profiles: Sequence[Profile]) -> None:
        self._places: dict[str, int] = {}
        at = 0
        for port in ports:
            self._places[port.name] = at
            most = max(int(np.prod(profile.shapes(port)[2])) for profile in profiles) * np.dtype(port.dtype).itemsize
            at += -(-most // ALIGNMENT) * ALIGNMENT
        self._memory = device.allocate(at, "an engine's inputs")
        self._staged: Bytes = np.zeros(at, np.uint8)

    def address(self, name: str) -> int:
        """Where an input lies."""
        return self._memory.address + self._places[name]

    def upload(self, feeds: Feeds) -> None:
        """Bring all inputs to the device in one copy."""
        end = 0
        for name, array in feeds.items():
            at, data = self._places[name], np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self._staged[at : at + len(data)] = data
            end = max(end, at + len(data))
        self._memory.upload(self._staged[:end])
