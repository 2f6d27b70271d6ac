"""The passes over all logits, against plain indexing."""

from __future__ import annotations

import pytest
import torch
from isotoken.kernels.triton.sampler import BLOCK, above, argmax, block_maxima


@pytest.mark.parametrize("size", [1, 5, BLOCK, BLOCK + 1, 5 * BLOCK, 7 * BLOCK - 3])
def test_argmax_takes_the_lowest_of_equals(size: int) -> None:
    logits = torch.randint(-2, 3, (50, size)).float()
    want = [row.index(max(row)) for row in logits.tolist()]
    assert argmax(logits, block_maxima(logits)).tolist() == want


@pytest.mark.parametrize("size", [5, BLOCK, 5 * BLOCK + 17])
def test_above_finds_all_and_only_what_reaches_the_floor(size: int) -> None:
    logits = torch.randint(-5, 6, (6, size)).float()
    floors = torch.tensor([4.0, 5.0, 6.0, -torch.inf, torch.inf, 0.0])
    rows, ids, values = above(logits, block_maxima(logits), floors)
    want = [
        (row, index, value)
        for row, (line, floor) in enumerate(zip(logits.tolist(), floors.tolist(), strict=True))
        for index, value in enumerate(line)
        if value >= floor
    ]
    assert list(zip(rows.tolist(), ids.tolist(), values.tolist(), strict=True)) == want
