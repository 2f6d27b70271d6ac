"""Decode steps recorded as CUDA graphs: one for each window of rows and bucket of lengths, replayed from then on."""

from __future__ import annotations

from itertools import count as numbers

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from .bindings import Rows, WindowBinding, run_anew
from .cuda import length_bucket
from .forms import Form, Inputs, Onward

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

MAX_RECORDINGS = 512
"""Beyond that steps run unrecorded: each recording holds memory on the device."""


class Recorder:
    """Gives every recording of a session a number of its own."""

    def __init__(self) -> None:
        self._numbers = iter(numbers(1))
        self._num_left = MAX_RECORDINGS
        self.unrecorded = run_options(-1)

    def next(self) -> ort.RunOptions:
        """Return the options of a run that is recorded the first time and replayed later, while there is room."""
        if not self._num_left:
            return self.unrecorded
        self._num_left -= 1
        return run_options(next(self._numbers))


def run_options(graph_id: int) -> ort.RunOptions:
    """Return the options of a run; -1: not recorded."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


class RecordedWindow:
    """A window whose decodes are recorded. Addresses and shapes of a recording never change, so it has its own binding.

    total_sequence_length is fixed in a recording, so it says the longest length of a bucket; the operator masks by
    seqlens_k. That this is so on a GPU is read, not tried.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        rows: Rows,
        form: Form,
        first: int,
        count: int,
        *,
        max_model_len: int,
        recorder: Recorder,
    ) -> None:
        self._chunks = WindowBinding(session, rows, form, first, count)
        self._decodes = WindowBinding(session, rows, self._bucketed(form), first, count)
        self._every: Int64 = np.arange(count)
        self._max_model_len = max_model_len
        self._recorder = recorder
        self._options: dict[int, ort.RunOptions] = {}  # by bucket

    def run(self, ids: Int64, places: Int64 | slice, ends: Int64, indices: Int64, logits: Float32) -> None:
        """Run a window as WindowBinding does."""
        if ids.shape[1] > 1:
            self._chunks.run(ids, places, ends, indices, logits, self._recorder.unrecorded)
            return
        bucket = self._bucket(ends)
        if bucket not in self._options:
            self._options[bucket] = self._recorder.next()
        everyones = np.empty((len(ids), logits.shape[1]), np.float32)
        self._decodes.run(ids, places, ends, self._every, everyones, self._options[bucket])
        logits[:] = everyones[indices]

    def run_on(self, step: Onward, logits: Float32) -> None:
        """See Window."""
        run_anew(self, step, logits)

    def _bucket(self, ends: Int64) -> int:
        return length_bucket(int(ends.max()), self._max_model_len)

    def _bucketed(self, form: Form) -> Form:
        def inputs(ids: Int64, places: Int64 | slice, ends: Int64) -> Inputs:
            return form(ids, places, ends) | {"total_sequence_length": np.array(self._bucket(ends), np.int32)}

        return inputs
