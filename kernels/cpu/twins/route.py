"""Route, Gather and Combine: a mixture of experts' way from tokens to experts and back.

Their own rows are tokens (ROWS_TOKENS or ROWS_CHOSEN); what lies between them are places (ROWS_EXPERT or ROWS_ROUTED).
"""

from __future__ import annotations

import numpy as np

from .. import program as p
from .memory import array, operand_rows, row_range, rows
from .operand import filled_up


def route(op: p.Route, step: p.Step) -> None:
    """Choose each token's experts and shares, and give every choice a place, sorted by expert, then by token."""
    routing, num_tokens = p.Routing.from_address(op.routing or 0), len(row_range(op.head, step))
    num_experts, top_k = routing.num_experts, routing.top_k
    logits = rows(op.logits, num_tokens, op.ld, num_experts, np.float32).astype(np.float64)
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :top_k]  # the lowest index wins a tie
    experts = np.sort(best, axis=-1)
    shares = np.take_along_axis(probabilities, experts, axis=-1)
    if op.normalize:
        shares /= shares.sum(axis=-1, keepdims=True)
    array(routing.experts, (num_tokens, top_k), np.int32)[:] = experts
    array(routing.shares, (num_tokens, top_k), np.float32)[:] = shares
    order = np.argsort(experts.reshape(-1), kind="stable")
    array(routing.tokens, (num_tokens * top_k,), np.int32)[:] = order // top_k
    places = array(routing.places, (num_tokens * top_k,), np.int32)
    places[order] = np.arange(len(order))
    starts = array(routing.starts, (num_experts + 1,), np.int32)
    starts[0] = 0
    starts[1:] = np.cumsum(np.bincount(experts.reshape(-1), minlength=num_experts))


def gather(op: p.Gather, step: p.Step) -> None:
    """Copy each place's token, with its scale and sums."""
    routing, num_tokens = p.Routing.from_address(op.head.routing or 0), len(row_range(op.head, step))
    num_places = num_tokens * routing.top_k
    tokens = array(routing.tokens, (num_places,), np.int32)
    source, target, form = op.input, op.out, op.input.form
    width = filled_up(op.size)
    operand_rows(target, range(num_places), width)[:] = operand_rows(source, range(num_tokens), width)[tokens]
    if form not in (p.FORM_F32, p.FORM_BF16):
        array(target.scales, (num_places,), np.float32)[:] = array(source.scales, (num_tokens,), np.float32)[tokens]
    if form == p.FORM_I8_SUMMED:
        groups = -(-width // source.group)
        sums = array(source.sums, (num_tokens, groups), np.int32)
        array(target.sums, (num_places, groups), np.int32)[:] = sums[tokens]


def combine(op: p.Combine, step: p.Step) -> None:
    """Add up the experts' answers of each token by their shares, one after the other."""
    routing, num_tokens = p.Routing.from_address(op.head.routing or 0), len(row_range(op.head, step))
    shares = array(routing.shares, (num_tokens, routing.top_k), np.float32)
    places = array(routing.places, (num_tokens, routing.top_k), np.int32)
    y = rows(op.y, num_tokens * routing.top_k, op.ld_y, op.size, np.float32)
    total = np.zeros((num_tokens, op.size), np.float32)
    for share, place in zip(shares.T, places.T, strict=True):
        total += share[:, None] * y[place]
    rows(op.out, num_tokens, op.ld_out, op.size, np.float32)[:] = total
