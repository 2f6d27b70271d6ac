"""Drive a runner with hand-made batches, apart from scheduler and cache: ragged, chunked, with scattered blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from isotoken.core.batch import Batch, SamplingRows
from isotoken.core.interfaces import ModelRunner
from numpy.typing import NDArray


@dataclass(frozen=True)
class Query:
    """Compute tokens [start, stop) of one sequence, which holds these blocks."""

    sequence: int
    start: int
    stop: int


def greedy_rows(positions: NDArray[np.int32]) -> SamplingRows:
    """Sampling rows that draw greedily after `positions` [L]."""
    num_rows = len(positions)
    zeros, nothing = np.zeros(num_rows, np.int32), np.empty(0, np.int32)
    return SamplingRows(
        temperature=np.zeros(num_rows, np.float32),
        top_k=zeros,
        top_p=np.ones(num_rows, np.float32),
        min_p=np.zeros(num_rows, np.float32),
        seeds=np.zeros(num_rows, np.uint64),
        positions=positions.astype(np.int64) + 1,
        target_ids=zeros - 1,
        num_logprobs=zeros - 2,
        penalty_rows=nothing,
        penalty_ids=nothing,
        penalty_values=np.empty(0, np.float32),
        bias_rows=nothing,
        bias_ids=nothing,
        bias_values=np.empty(0, np.float32),
        mask=None,
    )


def make_batch(
    queries: Sequence[Query],
    sequences: Sequence[Sequence[int]],
    tables: Sequence[Sequence[int]],
    block_size: int,
    *,
    copies: Sequence[tuple[int, int, int]] = (),
    logits: bool = True,
) -> Batch:
    """Lay out queries whose sequences hold the blocks of `tables`, with logits for every query token or for none."""
    lengths = [query.stop - query.start for query in queries]
    positions = np.concatenate([np.arange(query.start, query.stop, dtype=np.int32) for query in queries])
    owners = np.repeat([query.sequence for query in queries], lengths)
    pairs = zip(owners, positions, strict=True)
    slots = [tables[owner][position // block_size] * block_size + position % block_size for owner, position in pairs]
    table = np.zeros((len(queries), max(len(tables[query.sequence]) for query in queries)), np.int32)
    for row, query in zip(table, queries, strict=True):
        row[: len(tables[query.sequence])] = tables[query.sequence]
    indices = np.arange(len(positions) if logits else 0, dtype=np.int32)
    return Batch(
        input_ids=np.array(
            [t for query in queries for t in sequences[query.sequence][query.start : query.stop]], np.int32
        ),
        positions=positions,
        slot_mapping=np.array(slots, np.int32),
        query_start_loc=np.cumsum([0, *lengths], dtype=np.int32),
        seq_lens=np.array([query.stop for query in queries], np.int32),
        block_table=table,
        logits_indices=indices,
        row_ids=np.arange(len(queries), dtype=np.int32),
        block_copies=np.array(copies, np.int32).reshape(-1, 3),
        sampling=greedy_rows(positions[indices]),
    )


def scattered_tables(sequences: Sequence[Sequence[int]], runner: ModelRunner, seed: int) -> list[list[int]]:
    """Give each sequence blocks of its own, in random order."""
    block_size = runner.info.block_size
    free = iter(np.random.default_rng(seed).permutation(runner.info.num_blocks).tolist())
    return [[next(free) for _ in range(-(-len(sequence) // block_size))] for sequence in sequences]


def run_all(
    runner: ModelRunner, sequences: Sequence[Sequence[int]], *, max_chunk: int, seed: int = 0
) -> list[NDArray[Any]]:
    """Feed whole sequences in random chunks of up to `max_chunk` tokens; return logits [length, V] of each.

    Every step advances a random choice of the unfinished sequences, in random order.
    """
    rng = np.random.default_rng(seed)
    tables = scattered_tables(sequences, runner, seed)
    done = [0] * len(sequences)
    logits: list[list[NDArray[Any]]] = [[] for _ in sequences]
    while unfinished := [i for i, sequence in enumerate(sequences) if done[i] < len(sequence)]:
        queries, budget = [], runner.info.max_num_batched_tokens
        for i in rng.permutation(unfinished)[: runner.info.max_num_seqs].tolist():
            size = int(min(rng.integers(1, max_chunk + 1), len(sequences[i]) - done[i], budget))
            if size and (rng.random() < 0.9 or not queries):
                queries.append(Query(i, done[i], done[i] + size))
                done[i] += size
                budget -= size
        batch = make_batch(queries, sequences, tables, runner.info.block_size)
        rows = np.asarray(runner.forward(batch)).copy()  # valid until the next forward
        for query in queries:
            rows, taken = rows[query.stop - query.start :], rows[: query.stop - query.start]
            logits[query.sequence].append(taken)
    return [np.concatenate(parts) for parts in logits]
