"""The parts of sampling that read every logit: maxima of blocks, and the few logits above a floor."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 128  # logits a block


def block_maxima(logits: Tensor) -> Tensor:
    """Return [L, ceil(V / BLOCK)], the highest of each block of logits [L, V] float32; the last block may be short."""
    whole = logits.shape[1] // BLOCK * BLOCK
    maxima: Tensor = logits[:, :whole].unflatten(1, (-1, BLOCK)).amax(-1)
    if whole == logits.shape[1]:
        return maxima
    return torch.cat((maxima, logits[:, whole:].amax(-1, keepdim=True)), -1)


def argmax(logits: Tensor, maxima: Tensor) -> Tensor:
    """Return [L] int64, the lowest index of each row's highest logit, given its block maxima."""
    block = maxima.argmax(-1)
    return block * BLOCK + _blocks(logits, torch.arange(len(logits), device=logits.device), block).argmax(-1)


def above(logits: Tensor, maxima: Tensor, floors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows [C], ids [C] and values [C] of all logits >= floors [L] of their row, by row, then id.

    Only blocks whose maximum reaches the floor are read again.
    """
    rows, blocks = (maxima >= floors[:, None]).nonzero(as_tuple=True)
    values = _blocks(logits, rows, blocks)
    hits, offsets = (values >= floors[rows, None]).nonzero(as_tuple=True)
    ids = blocks[hits] * BLOCK + offsets
    inside = ids < logits.shape[1]  # a floor of -inf lets the padding of a short block through
    return rows[hits][inside], ids[inside], values[hits, offsets][inside]


def _blocks(logits: Tensor, rows: Tensor, blocks: Tensor) -> Tensor:
    """Return [P, BLOCK], one block of one row for each pair; past the vocabulary's end: -inf."""
    size = logits.shape[1]
    ids = blocks[:, None] * BLOCK + torch.arange(BLOCK, device=logits.device)
    values = logits.reshape(-1)[rows[:, None] * size + ids.clamp(max=size - 1)]
    return values if size % BLOCK == 0 else values.masked_fill_(ids >= size, -torch.inf)
