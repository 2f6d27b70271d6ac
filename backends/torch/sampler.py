"""TorchSampler: draws the tokens that HostSampler would, looking twice only at the logits that can win."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.batch import NOT_A_NUMBER, Float32, Int32, Int64, Sampled, SamplingRows
from ...core.sampling import NOISE_SPAN, gumbel, masked_rows
from ...kernels.triton.sampler import above, argmax, block_maxima
from .logprobs import with_logprobs

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

NOISE_MAX = np.float32(16.7)  # above the highest Gumbel noise of a 23-bit uniform, 16.64
FIRST_LOOK = 128  # tokens a row that are looked at first where no top-k says how many
CHUNK = 1 << 22  # candidates held in one padded array


class TorchSampler:
    """The sampling of ARCHITECTURE section 4. Full passes over the logits run in torch, the few candidates in numpy.

    A token more than 20 below the best cannot win. Mostly far fewer need noise: once some candidate has a score, only
    tokens within 16.7 below it can beat it. So each row is first looked at from its top down to a floor that keeps
    about top_k or 128 tokens, and a second time, deeper, only where that did not settle it.
    """

    def sample(self, logits: Tensor, rows: SamplingRows) -> Sampled:
        """Draw (or score) one token for each of the L rows of float32 logits [L, V]. Waits for the device."""
        if len(logits) == 0:
            return Sampled(np.empty(0, np.int32))
        with torch.inference_mode():
            edited = edit_logits(logits, rows)
            maxima = block_maxima(edited)
            best = maxima.amax(-1)
            tokens = argmax(edited, maxima).masked_fill(best.isnan(), NOT_A_NUMBER).cpu().numpy().astype(np.int32)
            wanted = (rows.temperature > 0) & (rows.target_ids < 0)
            if wanted.any():  # a row with nothing allowed keeps its argmax
                drawn = np.flatnonzero(wanted & np.isfinite(_numpy(best)))
                _draw(edited, maxima, rows, drawn, tokens)
            tokens = np.where(rows.target_ids < 0, tokens, rows.target_ids)
            if (rows.num_logprobs > -2).any():
                return with_logprobs(logits, tokens, rows.num_logprobs)
        return Sampled(tokens)


def edit_logits(logits: Tensor, rows: SamplingRows) -> Tensor:
    """Apply penalties, biases and mask to a copy of logits [L, V]; the logits themselves where nothing is asked."""
    if not len(rows.penalty_rows) and not len(rows.bias_rows) and rows.mask is None:
        return logits
    edited = logits.clone()
    if len(rows.penalty_rows):
        at = _tensor(rows.penalty_rows, logits), _tensor(rows.penalty_ids, logits)
        x, penalties = edited[at], _tensor(rows.penalty_values, logits)
        edited[at] = torch.where(x > 0, x / penalties, x * penalties)
    if len(rows.bias_rows):
        at = _tensor(rows.bias_rows, logits), _tensor(rows.bias_ids, logits)
        edited[at] = edited[at] + _tensor(rows.bias_values, logits)
    if rows.mask is not None:
        limited = masked_rows(rows.mask)
        octets = _tensor(rows.mask[limited].astype("<u4").view(np.uint8), logits)
        bits = octets[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=logits.device) & 1
        forbidden = bits.reshape(len(limited), -1)[:, : logits.shape[1]] == 0
        some = _tensor(limited, logits)
        edited[some] = edited[some].masked_fill_(forbidden, -torch.inf)
    return edited


def _tensor(array: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.cpu().numpy()
    return array


def _draw(logits: Tensor, maxima: Tensor, rows: SamplingRows, drawn: Int64, tokens: Int32) -> None:
    """Set tokens[drawn] by Gumbel-max over what the filters keep; two looks at most."""
    if not len(drawn):
        return
    rows = replace(rows, top_k=np.where(rows.top_k < logits.shape[1], rows.top_k, 0))  # all of them: off
    top_k = rows.top_k[drawn]
    floors = _first_floors(maxima, drawn, top_k)
    step = CHUNK // (2 * int(top_k.max(initial=FIRST_LOOK)))
    while len(drawn):
        if np.isneginf(floors).any():
            step = CHUNK // logits.shape[1]
        again, deeper = [], []
        for chunk in _chunks(logits, maxima, drawn, floors, max(step, 1)):
            part = drawn[chunk.members]
            totals = _totals(logits, maxima, rows, part)
            unsettled, below = _settle(chunk, rows.select(part), totals, floors[chunk.members], part, tokens)
            again.append(part[unsettled])
            deeper.append(below[unsettled])
        drawn, floors = np.concatenate(again), np.concatenate(deeper)
        step = CHUNK // logits.shape[1]


def _first_floors(maxima: Tensor, drawn: Int64, top_k: Int32) -> Float32:
    """Return [n] a logit that each row's best top_k (else FIRST_LOOK) tokens reach: so many blocks do."""
    want = np.where(top_k > 0, top_k, FIRST_LOOK)
    num_blocks = maxima.shape[1]
    most = int(min(want.max(), num_blocks))
    best = _numpy(maxima[torch.from_numpy(drawn).to(maxima.device)].topk(most).values)
    floors = best[np.arange(len(drawn)), np.minimum(want, most) - 1]
    floors = np.where((want > num_blocks) & (top_k > 0), -np.inf, floors)
    # A little lower: dividing by the temperature may make neighbours equal, and then the lower id comes first.
    return (floors - np.abs(floors) * np.float32(1e-6)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Some drawn rows with all their logits above a floor, padded; of each row the ids ascend."""

    members: slice  # of the drawn rows
    ids: Int64  # [n, C]
    logits: Float32  # [n, C]; -inf in the padding


def _chunks(logits: Tensor, maxima: Tensor, drawn: Int64, floors: Float32, step: int) -> Iterator[_Candidates]:
    """Collect candidates, `step` rows at a time so that a padded array stays small."""
    device = logits.device
    for start in range(0, len(drawn), step):
        members = slice(start, min(start + step, len(drawn)))
        part = torch.from_numpy(drawn[members]).to(device)
        whole = len(part) == len(logits)
        found = above(
            logits if whole else logits[part],
            maxima if whole else maxima[part],
            torch.from_numpy(floors[members]).to(device),
        )
        row, ids, values = (tensor.cpu().numpy() for tensor in found)
        counts = np.bincount(row, minlength=len(part))
        column = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        shape = len(part), int(counts.max(initial=1))
        padded_ids, padded = np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32)
        padded_ids[row, column], padded[row, column] = ids, values
        yield _Candidates(members, padded_ids, padded)


def _totals(logits: Tensor, maxima: Tensor, rows: SamplingRows, part: Int64) -> Float64:
    """Return [n], for rows with top-p and no top-k the sum of exp(y - max y) over the vocabulary, else zero."""
    totals = np.zeros(len(part))
    need = np.flatnonzero((rows.top_p[part] < 1) & (rows.top_k[part] == 0))
    if len(need):
        at = torch.from_numpy(part[need]).to(logits.device)
        scale = torch.from_numpy(rows.temperature[part[need]]).to(logits.device)[:, None]
        best = (maxima[at].amax(-1, keepdim=True) / scale).double()
        totals[need] = (logits[at] / scale).double().sub_(best).exp_().sum(-1).cpu().numpy()
    return totals


def _settle(
    candidates: _Candidates, rows: SamplingRows, totals: Float64, floors: Float32, drawn: Int64, tokens: Int32
) -> tuple[Bool, Float32]:
    """Draw among the candidates and write tokens[drawn].

    Returns which rows are not settled by that [n], as tokens below their floor might win, and the floor that does [n].
    """
    y, ids = candidates.logits / rows.temperature[:, None], candidates.ids  # [n, C]
    keep, cut = np.isfinite(y), np.zeros(len(drawn), np.bool_)
    if (rows.top_k > 0).any() or (rows.top_p < 1).any():
        order = np.argsort(-y, axis=1, kind="stable")  # value descending, then id ascending
        y, ids = np.take_along_axis(y, order, 1), np.take_along_axis(ids, order, 1)
        keep, cut = _cut(y, rows, totals)
    every, first = np.arange(len(drawn)), y.argmax(1)
    best = y[every, first]
    if (rows.min_p > 0).any():
        keep &= np.exp(y.astype(np.float64) - best[:, None]) >= rows.min_p[:, None]
    keep &= y > (best - NOISE_SPAN)[:, None]
    keep[every, first] = True
    at, column = np.nonzero(keep)
    scores = np.full(y.shape, -np.inf, np.float32)
    scores[at, column] = y[at, column] + gumbel(rows.seeds[at], rows.positions[at], ids[at, column])
    top = scores.max(1)
    tokens[drawn] = np.where(scores == top[:, None], ids, np.iinfo(np.int64).max).min(1)
    needed = _enough(best, top, rows)
    return ~cut & (floors > needed), needed


def _enough(best: Float32, top: Float32, rows: SamplingRows) -> Float32:
    """Return [n] a logit below which nothing can win, given the best y and the top score so far."""
    with np.errstate(divide="ignore"):
        by_min_p = best + np.log(rows.min_p) - np.float32(1e-3)
    y = np.maximum(np.maximum(best - NOISE_SPAN, top - NOISE_MAX), by_min_p)
    logits = y * rows.temperature
    lower: Float32 = (logits - np.abs(logits) * np.float32(1e-5)).astype(np.float32)
    return lower


def _cut(y: Float32, rows: SamplingRows, totals: Float64) -> tuple[Bool, Bool]:
    """Return what top-k and top-p keep [n, C] of sorted y, and which rows they cut above the last candidate [n]."""
    rank = np.arange(y.shape[1])
    top_k = np.where(rows.top_k > 0, rows.top_k, np.iinfo(np.int32).max)[:, None]
    there = np.isfinite(y)
    keep: Bool = (rank < top_k) & there
    cut: Bool = rows.top_k > 0
    nucleus = np.flatnonzero(rows.top_p < 1)
    if len(nucleus):
        weights = np.exp(y[nucleus].astype(np.float64) - y[nucleus, :1])
        weights[~keep[nucleus]] = 0.0
        total = np.where(totals[nucleus] > 0, totals[nucleus], weights.sum(1))[:, None]
        inside = (np.cumsum(weights, 1) - weights) / total < rows.top_p[nucleus, None]
        cut[nucleus] |= (~inside & there[nucleus]).any(1)
        keep[nucleus] &= inside
    return keep, cut
