"""Drive a runner by hand: build batches without the core's scheduler, and read logits whatever they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.batch import Batch, SamplingRows
from ..core.interfaces import ModelRunner

Array = NDArray[np.float64]


def on_host(logits: Any) -> Array:
    """Copy logits to the host in float64. Exact: every compute dtype is a subset of float64."""
    if hasattr(logits, "detach"):  # a tensor that numpy may not know how to read: other device or dtype
        logits = logits.detach().double().cpu().numpy()
    return np.array(logits, dtype=np.float64)


def greedy_rows(num_rows: int, **changes: Any) -> SamplingRows:
    """SamplingRows that do nothing special for L rows; `changes` replaces whole arrays."""
    rows: dict[str, Any] = {
        "temperature": np.zeros(num_rows, np.float32),
        "top_k": np.zeros(num_rows, np.int32),
        "top_p": np.ones(num_rows, np.float32),
        "min_p": np.zeros(num_rows, np.float32),
        "seeds": np.zeros(num_rows, np.uint64),
        "positions": np.zeros(num_rows, np.int64),
        "target_ids": np.full(num_rows, -1, np.int32),
        "num_logprobs": np.full(num_rows, -2, np.int32),
        "penalty_rows": np.zeros(0, np.int32),
        "penalty_ids": np.zeros(0, np.int32),
        "penalty_values": np.zeros(0, np.float32),
        "bias_rows": np.zeros(0, np.int32),
        "bias_ids": np.zeros(0, np.int32),
        "bias_values": np.zeros(0, np.float32),
        "mask": None,
    }
    return SamplingRows(**(rows | changes))


@dataclass(slots=True)
class Strand:
    """A sequence with its blocks and how much of it is computed."""

    tokens: list[int]
    blocks: list[int]
    computed: int = 0
    row_id: int = 0


@dataclass(slots=True)
class Rig:
    """A runner with its blocks handed out by hand."""

    runner: ModelRunner
    free: list[int] = field(default_factory=list)  # block ids not yet handed out

    def __post_init__(self) -> None:
        self.free = self.free or list(range(self.runner.info.num_blocks))

    def strand(self, tokens: Sequence[int], *, row_id: int = 0, blocks: list[int] | None = None) -> Strand:
        """Give a sequence all the blocks that it needs."""
        count = -(-len(tokens) // self.runner.info.block_size)
        if blocks is None:
            blocks, self.free = self.free[:count], self.free[count:]
        assert len(blocks) >= count, "the rig ran out of blocks"
        return Strand(list(tokens), list(blocks), row_id=row_id)

    def batch(
        self, work: Sequence[tuple[Strand, int, int]], *, copies: Sequence[tuple[int, int, int]] = (), junk: int = 0
    ) -> Batch:
        """Build a batch of (strand, query tokens, logits rows); `junk` pads block tables with that many wrong ids."""
        info, size = self.runner.info, self.runner.info.block_size
        if sum(count for _, count, _ in work) > info.max_num_batched_tokens or len(work) > info.max_num_seqs:
            import pytest  # noqa: PLC0415  (what tests do; others ask for less, and need no pytest)

            pytest.skip(f"a step takes {info.max_num_batched_tokens} tokens of {info.max_num_seqs} requests at most")
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        lens: list[int] = []
        rows: list[int] = []
        starts = [0]
        width = max(len(s.blocks) for s, _, _ in work) + junk
        table = np.zeros((len(work), width), np.int32)
        for i, (strand, count, wanted) in enumerate(work):
            end = strand.computed + count
            where = range(strand.computed, end)
            ids += strand.tokens[strand.computed : end]
            positions += where
            slots += [strand.blocks[p // size] * size + p % size for p in where]
            starts.append(starts[-1] + count)
            lens.append(end)
            rows += range(starts[-1] - wanted, starts[-1])
            used = -(-end // size)
            table[i, :used] = strand.blocks[:used]
            if junk:
                table[i, used:] = self.runner.info.num_blocks - 1
        return Batch(
            input_ids=_int32(ids),
            positions=_int32(positions),
            slot_mapping=_int32(slots),
            query_start_loc=_int32(starts),
            seq_lens=_int32(lens),
            block_table=table,
            logits_indices=_int32(rows),
            row_ids=_int32([s.row_id for s, _, _ in work]),
            block_copies=_int32(copies).reshape(-1, 3),
            sampling=greedy_rows(len(rows)),
        )

    def step(self, work: Sequence[tuple[Strand, int, int]], **extra: Any) -> list[Array]:
        """Run one forward and move the strands on; logits rows [L, V] of each strand."""
        logits = on_host(self.runner.forward(self.batch(work, **extra)))
        assert logits.shape == (sum(rows for _, _, rows in work), self.runner.info.vocab_size), "shape of the logits"
        for strand, count, _ in work:
            strand.computed += count
        ends = np.cumsum([rows for _, _, rows in work])
        return np.split(logits, ends[:-1])

    def feed(self, strand: Strand, sizes: Sequence[int], *, all_rows: bool) -> Array:
        """Compute a strand in pieces of the given sizes; logits of every position, or of each piece's last one."""
        out = [self.step([(strand, n, n if all_rows else 1)])[0] for n in sizes]
        return np.concatenate(out)


def _int32(values: Any) -> NDArray[np.int32]:
    return np.asarray(values, np.int32)
