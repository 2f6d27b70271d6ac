"""Measure on a GPU what one step needs besides weights and cache."""

from __future__ import annotations

import numpy as np
import torch

from ...core.batch import Batch, SamplingRows


def full_batch(max_num_batched_tokens: int, max_model_len: int, block_size: int, num_logits: int) -> Batch:
    """Return the largest step: max_num_batched_tokens prompt tokens in as few requests as hold them."""
    lens = [max_model_len] * (max_num_batched_tokens // max_model_len)
    if rest := max_num_batched_tokens % max_model_len:
        lens.append(rest)
    seq_lens = np.array(lens, np.int32)
    width = -(-int(seq_lens.max()) // block_size)
    table = np.arange(len(lens) * width, dtype=np.int32).reshape(len(lens), width)
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lens])
    owner = np.arange(len(lens)).repeat(lens)
    total = int(seq_lens.sum())
    return Batch(
        input_ids=np.zeros(total, np.int32),
        positions=positions,
        slot_mapping=table[owner, positions // block_size] * np.int32(block_size) + positions % np.int32(block_size),
        query_start_loc=np.concatenate([[0], seq_lens.cumsum()]).astype(np.int32),
        seq_lens=seq_lens,
        block_table=table,
        logits_indices=np.arange(total - min(num_logits, total), total, dtype=np.int32),
        row_ids=np.arange(len(lens), dtype=np.int32),
        block_copies=np.empty((0, 3), np.int32),
        sampling=_no_sampling(),
    )


def _no_sampling() -> SamplingRows:
    floats, ints = np.empty(0, np.float32), np.empty(0, np.int32)
    return SamplingRows(
        temperature=floats,
        top_k=ints,
        top_p=floats,
        min_p=floats,
        seeds=np.empty(0, np.uint64),
        positions=np.empty(0, np.int64),
        target_ids=ints,
        num_logprobs=ints,
        penalty_rows=ints,
        penalty_ids=ints,
        penalty_values=floats,
        bias_rows=ints,
        bias_ids=ints,
        bias_values=floats,
        mask=None,
    )


class PeakMemory:
    """The most bytes that torch held on a CUDA device inside of the block, beyond those it held before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self._before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        torch.cuda.synchronize(self.device)
        self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        torch.cuda.empty_cache()
