"""BatchBuilder: turns a plan into a Batch, keeping what rarely changes in one numpy row for each running request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .batch import Batch, Float32, Int32, SamplingRows, UInt32
from .logits_edits import LogitsEdits, SparseRows
from .types import Request, Scheduled

_NO_COPIES = np.empty((0, 3), np.int32)
_NO_IDS = np.empty(0, np.int32)
_NO_VALUES = np.empty(0, np.float32)


class BatchBuilder:
    """Builds each step's batch. Sampling parameters are written once a request, block tables as they grow.

    A row is written anew when `Request.block_ids` is another list than the one it was written from, which happens
    whenever a request comes or comes back (see KVCache.free). Arrays are indexed by `Request.row_id`, R of them.
    """

    def __init__(self, *, max_num_seqs: int, block_size: int, vocab_size: int) -> None:
        self._block_size = block_size
        self._vocab_size = vocab_size
        self._sources: list[list[int] | None] = [None] * max_num_seqs  # the block_ids that each row mirrors
        self._num_blocks = [0] * max_num_seqs
        self._block_table = np.zeros((max_num_seqs, 64), np.int32)  # [R, W], W grows
        self._temperature = np.zeros(max_num_seqs, np.float32)  # [R], as the next
        self._top_k = np.zeros(max_num_seqs, np.int32)
        self._top_p = np.ones(max_num_seqs, np.float32)
        self._min_p = np.zeros(max_num_seqs, np.float32)
        self._seeds = np.zeros(max_num_seqs, np.uint64)
        self._num_logprobs = np.full(max_num_seqs, -2, np.int32)
        self._edits: dict[int, LogitsEdits] = {}  # rows whose logits are changed before drawing
        self._scored: set[int] = set()  # rows whose prompt is to be scored

    def build(self, plan: Sequence[Scheduled], block_copies: Sequence[tuple[int, int, int]] = ()) -> Batch:
        """Lay out a plan of at least one request. The arrays are the batch's own."""
        requests, start_list, num_tokens_list, _, num_logits_list = zip(*plan, strict=True)
        row_list = [request.row_id for request in requests]
        input_ids: list[int] = []
        width = 1
        for row, (request, start, num_tokens, _, _) in zip(row_list, plan, strict=True):
            blocks = request.block_ids
            if self._sources[row] is not blocks:
                self._open_row(row, request)
            elif self._num_blocks[row] != len(blocks):
                self._extend_row(row, blocks)
            width = max(width, len(blocks))
            _append_query(input_ids, request, start, start + num_tokens)

        rows = np.array(row_list, np.int32)  # [N]
        starts = np.array(start_list, np.int32)  # [N]
        lens = np.array(num_tokens_list, np.int32)  # [N]
        num_logits = np.array(num_logits_list, np.int32)  # [N]
        query_start_loc = _offsets(lens)
        positions = _ranges(starts, lens, query_start_loc)
        logits_offsets = _offsets(num_logits)
        logits_indices = _ranges(query_start_loc[1:] - num_logits, num_logits, logits_offsets)
        blocks_of = self._block_table[rows.repeat(lens), positions // self._block_size]  # [T]
        return Batch(
            input_ids=np.array(input_ids, np.int32),
            positions=positions,
            slot_mapping=blocks_of * np.int32(self._block_size) + positions % self._block_size,
            query_start_loc=query_start_loc,
            seq_lens=starts + lens,
            block_table=self._block_table[rows, :width],
            logits_indices=logits_indices,
            row_ids=rows,
            block_copies=np.array(block_copies, np.int32) if block_copies else _NO_COPIES,
            sampling=self._sampling(plan, rows.repeat(num_logits), positions[logits_indices], logits_offsets),
        )

    # --- rows that outlive a step ---------------------------------------------------------------

    def _open_row(self, row: int, request: Request) -> None:
        params = request.params
        self._sources[row] = None  # until the row is whole
        self._num_blocks[row] = 0
        self._block_table[row] = 0
        self._extend_row(row, request.block_ids)
        self._temperature[row] = params.temperature
        self._top_k[row] = params.top_k
        self._top_p[row] = params.top_p
        self._min_p[row] = params.min_p
        self._seeds[row] = params.seed
        self._num_logprobs[row] = -2 if params.num_logprobs is None else params.num_logprobs
        self._edits.pop(row, None)
        if LogitsEdits.wanted(request):
            self._edits[row] = LogitsEdits(request, self._vocab_size)
        self._scored.discard(row)
        if params.num_prompt_logprobs is not None:
            self._scored.add(row)
        self._sources[row] = request.block_ids

    def _extend_row(self, row: int, blocks: list[int]) -> None:
        width, known = self._block_table.shape[1], self._num_blocks[row]
        if len(blocks) > width:
            wider = np.zeros((len(self._block_table), max(len(blocks), 2 * width)), np.int32)
            wider[:, :width] = self._block_table
            self._block_table = wider
        self._block_table[row, known : len(blocks)] = blocks[known:]
        self._num_blocks[row] = len(blocks)

    # --- sampling rows --------------------------------------------------------------------------

    def _sampling(self, plan: Sequence[Scheduled], rows: Int32, query_positions: Int32, offsets: Int32) -> SamplingRows:
        """Describe the L draws: `rows` [L], `query_positions` [L], `offsets` [N + 1] cumulative logits rows."""
        target_ids = np.full(len(rows), -1, np.int32)
        num_logprobs = self._num_logprobs[rows]
        if self._scored:
            self._set_targets(plan, offsets, target_ids, num_logprobs)
        penalties = biases = None
        mask: UInt32 | None = None
        if self._edits:
            penalties, biases, mask = self._collect_edits(plan, offsets)
        penalty_rows, penalty_ids, penalty_values = _arrays(penalties)
        bias_rows, bias_ids, bias_values = _arrays(biases)
        return SamplingRows(
            temperature=self._temperature[rows],
            top_k=self._top_k[rows],
            top_p=self._top_p[rows],
            min_p=self._min_p[rows],
            seeds=self._seeds[rows],
            positions=query_positions + np.int64(1),
            target_ids=target_ids,
            num_logprobs=num_logprobs,
            penalty_rows=penalty_rows,
            penalty_ids=penalty_ids,
            penalty_values=penalty_values,
            bias_rows=bias_rows,
            bias_ids=bias_ids,
            bias_values=bias_values,
            mask=mask,
        )

    def _set_targets(self, plan: Sequence[Scheduled], offsets: Int32, target_ids: Int32, num_logprobs: Int32) -> None:
        """Rows at prompt positions score the prompt's next token instead of drawing."""
        for share, row in zip(plan, offsets.tolist(), strict=False):
            request = share.request
            wanted = request.params.num_prompt_logprobs
            if wanted is None:
                continue
            first = share.start + share.num_tokens - share.num_logits + 1  # position that the first row is about
            targets = request.token_ids[first : min(first + share.num_logits, request.num_prompt_tokens)]
            target_ids[row : row + len(targets)] = targets
            num_logprobs[row : row + len(targets)] = wanted

    def _collect_edits(self, plan: Sequence[Scheduled], offsets: Int32) -> tuple[SparseRows, SparseRows, UInt32 | None]:
        penalties, biases = SparseRows(), SparseRows()
        mask: UInt32 | None = None
        for share, row in zip(plan, offsets.tolist(), strict=False):
            edits = self._edits.get(share.request.row_id)
            if edits is None or not share.num_logits:
                continue
            end = share.start + share.num_tokens
            num_draws = min(share.num_logits, end - len(share.request.token_ids) + 1)  # the others score the prompt
            if num_draws <= 0:
                continue
            first = row + share.num_logits - num_draws
            edits.append_to(penalties, biases, first, end - len(share.request.token_ids) + 1 - num_draws, num_draws)
            if edits.mask is not None:
                if mask is None:
                    mask = np.full((int(offsets[-1]), len(edits.mask)), 0xFFFFFFFF, np.uint32)
                mask[first : first + num_draws] = edits.mask
        return penalties, biases, mask


def _append_query(input_ids: list[int], request: Request, start: int, end: int) -> None:
    """Append the tokens, then drafts, at positions `start` to `end`."""
    known = len(request.token_ids)
    if end == start + 1 <= known:
        input_ids.append(request.token_ids[start])
        return
    input_ids += request.token_ids[start:end]
    if end > known:
        input_ids += request.draft_ids[max(start - known, 0) : end - known]


def _offsets(lens: Int32) -> Int32:
    """[N] lengths to [N + 1] cumulative ones."""
    offsets = np.zeros(len(lens) + 1, np.int32)
    np.cumsum(lens, out=offsets[1:])
    return offsets


def _ranges(starts: Int32, lens: Int32, offsets: Int32) -> Int32:
    """Concatenate arange(start, start + len) over N, `offsets` [N + 1] being the cumulative lengths."""
    return (starts - offsets[:-1]).repeat(lens) + np.arange(offsets[-1], dtype=np.int32)


def _arrays(pairs: SparseRows | None) -> tuple[Int32, Int32, Float32]:
    return (_NO_IDS, _NO_IDS, _NO_VALUES) if pairs is None else pairs.arrays()
