"""BatchBuilder: turns a plan into a Batch, keeping what rarely changes in one numpy row for each running request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .batch import Batch, Float32, Int32, SamplingRows, UInt32
from .batch_layout import Layout
from .logits_edits import LogitsEdits, SparseRows
from .types import Request, Scheduled

_NO_COPIES = np.empty((0, 3), np.int32)
_NO_IDS = np.empty(0, np.int32)
_NO_VALUES = np.empty(0, np.float32)
_NO_POSITIONS = np.empty(0, np.int64)


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
        self._layout: Layout | None = None  # of the last step, with what it was made from,
        self._layout_key: tuple[tuple[int, ...], ...] = ()
        self._draws = self._describe_draws(_NO_IDS)  # how its rows draw,
        self._table: Int32 | None = None  # and its block tables [N, B] unless one of them has grown

    def build(self, plan: Sequence[Scheduled], block_copies: Sequence[tuple[int, int, int]] = ()) -> Batch:
        """Lay out a plan of at least one request. Nobody writes to the arrays: later batches share what stays."""
        input_ids: list[int] = []
        for request, start, num_tokens, _, _ in plan:
            row, block_ids, known = request.row_id, request.block_ids, request.token_ids
            if self._sources[row] is not block_ids:
                self._open_row(row, request)
            elif self._num_blocks[row] != len(block_ids):
                self._extend_row(row, block_ids)
            if num_tokens == 1 and start < len(known):
                input_ids.append(known[start])
            else:
                _append_query(input_ids, request, start, start + num_tokens)

        requests, start_list, num_tokens_list, _, num_logits_list = zip(*plan, strict=True)
        layout = self._lay_out(tuple(request.row_id for request in requests), num_tokens_list, num_logits_list)
        starts = np.array(start_list, np.int32)  # [N]
        positions = starts if layout.is_plain else starts[layout.owners] + layout.places  # [T]
        drawn = positions if layout.is_plain else positions[layout.logits_indices]  # [L] positions before the draws
        blocks, offsets = np.divmod(positions, self._block_size)  # [T]
        return Batch(
            input_ids=np.array(input_ids, np.int32),
            positions=positions,
            slot_mapping=self._block_table[layout.token_rows, blocks] * self._block_size + offsets,
            query_start_loc=layout.query_start_loc,
            seq_lens=starts + layout.lens,
            block_table=self._tables(layout.rows),
            logits_indices=layout.logits_indices,
            row_ids=layout.rows,
            block_copies=np.array(block_copies, np.int32) if block_copies else _NO_COPIES,
            sampling=self._sampling(plan, layout.draw_rows, drawn, layout.logits_offsets),
        )

    # --- what outlives a step -------------------------------------------------------------------

    def _lay_out(self, *key: tuple[int, ...]) -> Layout:
        """Return the layout of rows, numbers of tokens and numbers of logits rows [N] each: the last one if it fits."""
        if self._layout is None or self._layout_key != key:
            self._layout_key, self._layout = key, Layout.of(*key)
            self._draws = self._describe_draws(self._layout.draw_rows)
            self._table = None
        return self._layout

    def _tables(self, rows: Int32) -> Int32:
        """Return the block tables [N, B] of `rows` [N], those of the last step while none has grown."""
        if self._table is None:
            self._table = self._block_table[rows, : max([1, *(self._num_blocks[row] for row in rows.tolist())])]
        return self._table

    def _open_row(self, row: int, request: Request) -> None:
        params = request.params
        self._sources[row] = self._layout = None  # until the row is whole
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
        self._table = None

    # --- sampling rows --------------------------------------------------------------------------

    def _describe_draws(self, rows: Int32) -> SamplingRows:
        """Describe the draws of `rows` [L], but for positions, targets and edits, which differ from step to step."""
        return SamplingRows(
            temperature=self._temperature[rows],
            top_k=self._top_k[rows],
            top_p=self._top_p[rows],
            min_p=self._min_p[rows],
            seeds=self._seeds[rows],
            positions=_NO_POSITIONS,
            target_ids=np.full(len(rows), -1, np.int32),
            num_logprobs=self._num_logprobs[rows],
            penalty_rows=_NO_IDS,
            penalty_ids=_NO_IDS,
            penalty_values=_NO_VALUES,
            bias_rows=_NO_IDS,
            bias_ids=_NO_IDS,
            bias_values=_NO_VALUES,
            mask=None,
        )

    def _sampling(self, plan: Sequence[Scheduled], rows: Int32, query_positions: Int32, offsets: Int32) -> SamplingRows:
        """Describe the L draws: `rows` [L], `query_positions` [L], `offsets` [N + 1] cumulative logits rows."""
        draws = self._draws
        target_ids, num_logprobs = draws.target_ids, draws.num_logprobs
        if self._scored:
            target_ids, num_logprobs = target_ids.copy(), num_logprobs.copy()
            self._set_targets(plan, offsets, target_ids, num_logprobs)
        penalties = biases = None
        mask: UInt32 | None = None
        if self._edits:
            penalties, biases, mask = self._collect_edits(plan, offsets)
        penalty_rows, penalty_ids, penalty_values = _arrays(penalties)
        bias_rows, bias_ids, bias_values = _arrays(biases)
        return SamplingRows(
            temperature=draws.temperature,
            top_k=draws.top_k,
            top_p=draws.top_p,
            min_p=draws.min_p,
            seeds=draws.seeds,
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


def _arrays(pairs: SparseRows | None) -> tuple[Int32, Int32, Float32]:
    return (_NO_IDS, _NO_IDS, _NO_VALUES) if pairs is None else pairs.arrays()
