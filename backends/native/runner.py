"""The runner: fills in where a batch's arrays lie, and runs the model's program on it."""

from __future__ import annotations

import numpy as np

from ...core.batch import Batch, Float32
from ...core.interfaces import RunnerInfo, Sampler
from ...kernels.cpu.program import Step
from .bounds import Arrays, beyond_memory
from .executor import Executor
from .memory import Arena
from .parts import Parts
from .program import build_program

WARM_TOKENS = 32


class NativeRunner:
    """A model and its K/V memory in main memory, and the threads that compute it. Not thread-safe."""

    def __init__(self, info: RunnerInfo, parts: Parts, logits: Arena, executor: Executor) -> None:
        self.info = info
        self.sampler: Sampler | None = executor.sampler()
        self._parts, self._executor, self._memory = parts, executor, logits
        self._logits: Float32 = logits.view(0, (info.max_num_logits, info.vocab_size), np.float32)
        self._step = Step()
        self._run = executor.prepare(build_program(parts))
        self._closed = False

    def forward(self, batch: Batch) -> Float32:
        """Run one step; float32 logits [L, vocab_size], overwritten by the next one."""
        if self._closed:
            raise RuntimeError("backend native: the runner is closed")
        if len(batch.block_copies):
            self._parts.caches.copy(batch.block_copies)
        num_tokens, num_logits = len(batch.input_ids), len(batch.logits_indices)
        if num_tokens:
            arrays = Arrays.of(batch)
            self._check(arrays)
            self._fill(arrays)
            self._run(self._step)
            del arrays  # they had to live until here
        return self._logits[:num_logits]

    def warm_up(self) -> None:
        """Run a short prompt: the first request need not wait for the system to commit memory. Dirties some blocks."""
        info = self.info
        length = min(WARM_TOKENS, info.max_model_len, info.max_num_batched_tokens, info.num_blocks * info.block_size)
        places, one = np.arange(length, dtype=np.int32), np.ones(1, np.int32)
        step = Step(num_tokens=length, num_requests=1, num_logits=1, table_width=-(-length // info.block_size))
        self._parts.rotations.cover(length)
        arrays = {
            "input_ids": np.zeros_like(places),
            "positions": places,
            "slot_mapping": places,
            "query_start_loc": np.array([0, length], np.int32),
            "seq_lens": one * length,
            "block_table": places[: step.table_width],
            "logits_indices": one * (length - 1),
        }
        for name, array in arrays.items():
            setattr(step, name, array.ctypes.data)
        self._run(step)

    def close(self) -> None:
        """Give back memory and threads."""
        if self._closed:
            return
        self._closed = True
        self._executor.close()
        self._run = _closed
        self._logits = np.empty((0, self.info.vocab_size), np.float32)
        parts = self._parts
        for memory in (self._memory, parts.weights, parts.activations, parts.caches, parts.rotations):
            memory.close()

    def _check(self, arrays: Arrays) -> None:
        """Refuse what would read or write beyond this runner's memory."""
        info = self.info
        num_tokens, num_logits = len(arrays.input_ids), len(arrays.logits_indices)
        if num_tokens > info.max_num_batched_tokens or num_logits > min(info.max_num_logits, num_tokens):
            raise ValueError(
                f"backend native: a step of {num_tokens} tokens and {num_logits} logits rows, at most "
                f"{info.max_num_batched_tokens} and {info.max_num_logits} were asked for, and a row for each token"
            )
        self._parts.rotations.cover(max(arrays.seq_lens.tolist()))
        if why := beyond_memory(arrays, info):
            raise ValueError(f"backend native: {why}")

    def _fill(self, arrays: Arrays) -> None:
        """Point the step at the batch's arrays."""
        step = self._step
        step.num_tokens, step.num_logits = len(arrays.input_ids), len(arrays.logits_indices)
        step.num_requests, step.table_width = arrays.block_table.shape
        (
            step.input_ids,
            step.positions,
            step.slot_mapping,
            step.query_start_loc,
            step.seq_lens,
            step.block_table,
            step.logits_indices,
        ) = [array.__array_interface__["data"][0] for array in arrays]


def _closed(step: Step) -> None:
    raise RuntimeError("backend native: the runner is closed")
