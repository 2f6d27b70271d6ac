"""The arrays that say to a graph of the form `standard` or `standard-mask` which tokens belong to which row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def ragged_inputs(query_lens: Sequence[int], past_lens: Sequence[int], *, masked: bool) -> dict[str, Int64]:
    """Return every input but the tokens, the cache and logits_indices, for B rows.

    Row b brings query_lens[b] (at least 1) new tokens after past_lens[b] that its cache holds. `masked` is for
    `standard-mask`. See the package's docstring for shapes and meaning.
    """
    lens, past = np.asarray(query_lens, np.int64), np.asarray(past_lens, np.int64)
    starts = np.cumsum(lens) - lens  # [B] number of each row's first token
    width = int(lens.max(initial=0))
    rows = np.repeat(np.arange(len(lens)), lens)  # [T]
    offsets = np.arange(int(lens.sum())) - starts[rows]  # [T] place of each token among its row's new ones
    columns = np.arange(width)
    inputs = {
        "positions": past[rows] + offsets,
        "write_indices": past,
        "kv_indices": starts[:, None] + np.minimum(columns, lens[:, None] - 1),
    }
    if masked:
        return inputs | {"flat_indices": rows * width + offsets}
    behind = np.maximum(columns - (width - lens[:, None]), 0)  # a row's tokens end in the last column
    return inputs | {
        "query_indices": starts[:, None] + behind,
        "flat_indices": rows * width + (width - lens[rows]) + offsets,
        "nonpad_kv_seqlen": past + lens,
    }
