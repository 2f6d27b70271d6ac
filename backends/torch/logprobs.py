"""Log-probabilities of the raw logits, for the rows that ask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...core.batch import Float32, Int32, Int64, Sampled
from ...core.sampling import best_ids
from ...kernels.triton.sampler import above, block_maxima


def with_logprobs(logits: Tensor, tokens: Int32, num_logprobs: Int32) -> Sampled:
    """Return tokens [L] with log-softmax values, ranks and the best tokens of logits [L, V]; -2 asks for none.

    What stands beside NOT_A_NUMBER means nothing.
    """
    num_rows, vocab_size = logits.shape
    width = vocab_size if (num_logprobs == -1).any() else min(int(num_logprobs.max()), vocab_size)
    logprobs, ranks = np.zeros(num_rows, np.float32), np.zeros(num_rows, np.int32)
    top_ids, top_logprobs = np.zeros((num_rows, width), np.int32), np.zeros((num_rows, width), np.float32)
    asked = np.flatnonzero(num_logprobs > -2)
    raw = logits if len(asked) == num_rows else logits[torch.from_numpy(asked).to(logits.device)]
    ids = np.maximum(tokens[asked], 0).astype(np.int64)
    own = raw.gather(1, torch.from_numpy(ids).to(logits.device)[:, None])
    maxima = block_maxima(raw)
    best = maxima.amax(-1, keepdim=True)
    log_totals = (best[:, 0].double() + (raw - best).logsumexp(-1).double()).cpu().numpy()
    logprobs[asked] = own[:, 0].double().cpu().numpy() - log_totals
    higher = torch.gt(raw, own, out=torch.empty_like(raw)).sum(-1)  # in float32, exact up to 2**24, and vectorised
    ranks[asked] = 1 + higher.cpu().numpy()
    counts = np.where(num_logprobs[asked] == -1, vocab_size, np.minimum(num_logprobs[asked], vocab_size))
    found = _at_least(raw, maxima, counts)
    starts = np.searchsorted(found[0], np.arange(len(asked) + 1))
    for index in np.flatnonzero(counts):
        part = slice(starts[index], starts[index + 1])
        ids, values = found[1][part], found[2][part]
        chosen = best_ids(values, int(counts[index]))
        top_ids[asked[index], : len(chosen)] = ids[chosen]
        top_logprobs[asked[index], : len(chosen)] = values[chosen] - log_totals[index]
    return Sampled(tokens, logprobs, ranks, top_ids, top_logprobs)


def _at_least(logits: Tensor, maxima: Tensor, counts: Int64) -> tuple[Int64, Int64, Float32]:
    """Return rows, ids and values, by row and id, of at least the counts [L] highest of each row of logits."""
    num_blocks = maxima.shape[1]
    best = maxima.topk(int(min(counts.max(), num_blocks))).values.cpu().numpy() if counts.any() else np.empty((0, 0))
    floors = np.full(len(counts), np.inf, np.float32)
    floors[counts > num_blocks] = -np.inf
    some = np.flatnonzero((counts > 0) & (counts <= num_blocks))
    floors[some] = best[some, counts[some] - 1]
    rows, ids, values = above(logits, maxima, torch.from_numpy(floors).to(logits.device))
    return rows.cpu().numpy(), ids.cpu().numpy(), values.cpu().numpy()
