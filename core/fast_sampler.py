"""FastSampler: HostSampler's tokens at a small part of its cost, for every runner whose logits numpy can read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .batch import NOT_A_NUMBER, Float32, Int32, Int64, Sampled, SamplingRows
from .interfaces import Logits
from .sampling import NOISE_SPAN, edit_logits, edits_nothing, gumbel, with_logprobs

NOISE_MAX = np.float32(16.7)  # above the highest Gumbel noise of a 23-bit uniform, 16.64
WEIGHTLESS = np.float32(60.0)  # exp(-60) is lost in a float64 sum of a vocabulary's weights
FIRST_LOOK = 256  # tokens of a row that are looked at first where no top-k says how many
_CHUNK = 1 << 20  # logits handled together: temporaries stay in the cache, and small rows share calls
_NOISE_CHUNK = 1 << 14  # ids that get noise together, for the cache again
_GROUPS = 1024


class FastSampler:
    """The sampling of ARCHITECTURE section 4 in numpy; equals HostSampler wherever that one is decided.

    Only tokens that can win get noise. Each row is first looked at from its top down to a floor that its best top_k or
    256 tokens reach. Once one of them has a score, only tokens within 16.7 below that can beat it: what lies between
    is looked at second, where no filter has cut it off. Filters are asked of the winner alone, for whatever comes
    behind a token that they refuse, in the order of probability, is refused too.

    Stateless: one instance may serve many runners. Never writes to the logits.
    """

    def sample(self, logits: Logits, rows: SamplingRows) -> Sampled:
        """Draw (or score) one token for each of the L rows of logits [L, V], read as float32."""
        raw: Float32 = np.asarray(logits, np.float32)
        greedy = not rows.temperature.any() and edits_nothing(rows)
        tokens = _best(raw).astype(np.int32) if greedy else _choose_in_parts(raw, rows)
        tokens = np.where(rows.target_ids < 0, tokens, rows.target_ids)
        return with_logprobs(raw, tokens, rows.num_logprobs, _score)


def _best(logits: Float32) -> Int64:
    """Return [n] the lowest index of each row's highest logit [n, V]; NOT_A_NUMBER where one is NaN."""
    tokens: Int64 = logits.argmax(-1)  # the first NaN, where there is one
    tokens[np.isnan(logits[np.arange(len(tokens)), tokens])] = NOT_A_NUMBER
    return tokens


def _choose_in_parts(raw: Float32, rows: SamplingRows) -> Int32:
    """Return [L] what `_choose` returns, some rows at a time."""
    num_rows, vocab_size = raw.shape
    tokens = np.empty(num_rows, np.int32)
    step = max(_CHUNK // vocab_size, 1)
    scratch: Float32 = np.empty((min(step, num_rows), vocab_size), np.float32)
    for start in range(0, num_rows, step):
        part = slice(start, start + step)
        some = rows if num_rows <= step else rows.select(np.arange(num_rows)[part])
        tokens[part] = _choose(raw[part], some, scratch)
    return tokens


def _choose(raw: Float32, rows: SamplingRows, scratch: Float32) -> Int64:
    """Return [n] the token of each row of raw logits [n, V]; the argmax where none is drawn."""
    edited = edit_logits(raw, rows)
    tokens = _best(edited)
    wanted = np.flatnonzero((rows.temperature > 0) & (rows.target_ids < 0) & (tokens != NOT_A_NUMBER))
    wanted = wanted[np.isfinite(edited[wanted, tokens[wanted]])]  # a row with nothing allowed keeps its argmax
    if not len(wanted):
        return tokens
    with np.errstate(over="ignore"):  # a temperature near zero: the infinite ones share the first place
        looks = [
            _first_look(np.divide(edited[row], rows.temperature[row], out=y), int(rows.top_k[row]))
            for row, y in zip(wanted, scratch, strict=False)
        ]
    sizes = [len(look.ids) for look in looks]
    ids = np.concatenate([look.ids for look in looks])
    noise = gumbel(rows.seeds[wanted].repeat(sizes), rows.positions[wanted].repeat(sizes), ids)  # one call for all
    end = 0
    for row, look in zip(wanted.tolist(), looks, strict=True):
        start, end = end, end + len(look.ids)
        look.scores = look.values + noise[start:end]
        tokens[row] = _settle(look, rows, row)
    return tokens


@dataclass(slots=True)
class _Look:
    """The tokens of one row that are in the running."""

    y: Float32  # [V] logits over temperature
    best: np.float32  # the highest of them
    floor: np.float32  # every token from here up is in the running, but for those that top-k cut
    ids: Int64  # [n] ascending
    values: Float32  # [n] their y
    top_k: int  # 0: off
    scores: Float32  # [n] y with noise


def _first_look(y: Float32, top_k: int) -> _Look:
    """Gather exactly the top k tokens, or about FIRST_LOOK where there is no top-k."""
    top_k = top_k if top_k < len(y) else 0
    best = y.max()
    if not np.isfinite(best):
        ids = np.array([y.argmax()])
        return _Look(y, best, best, ids, y[ids], 1, y[ids])
    floor = max(floor_of_best(y, top_k or FIRST_LOOK), best - (WEIGHTLESS if top_k else NOISE_SPAN))
    ids = np.flatnonzero(y >= floor)
    values = y[ids]
    if 0 < top_k < len(ids):
        least = np.partition(values, len(ids) - top_k)[len(ids) - top_k]
        keep = values > least
        keep[np.flatnonzero(values == least)[: top_k - np.count_nonzero(keep)]] = True  # ties by lowest id
        ids, values = ids[keep], values[keep]
    return _Look(y, best, floor, ids, values, top_k, values)


def floor_of_best(values: Float32, count: int) -> np.float32:
    """Return a value that the `count` highest of values [V] reach, and not many more; -inf if there are no more."""
    size = len(values)
    if count >= size:
        return np.float32(-np.inf)
    if 4 * count <= _GROUPS and size >= 8 * _GROUPS:  # that many groups have their best there
        values = values[: size // _GROUPS * _GROUPS].reshape(-1, _GROUPS).max(0)
        size = _GROUPS
    floor: np.float32 = np.partition(values, size - count)[size - count]
    return floor


def _settle(look: _Look, rows: SamplingRows, row: int) -> int:
    """Return the token of the highest score that the filters keep, the lowest id among equals."""
    top_p, min_p = float(rows.top_p[row]), float(rows.min_p[row])
    total = _total(look) if top_p < 1 else 1.0
    if not look.top_k:
        _look_deeper(look, rows, row, top_p * total)
    while True:
        at = int(look.scores.argmax())
        ahead = look.values > look.values[at]
        ahead[:at] |= look.values[:at] == look.values[at]
        if not ahead.any() or (
            np.exp(np.float64(look.values[at]) - look.best) >= min_p and _in_nucleus(look, ahead, total, top_p)
        ):
            return int(look.ids[at])
        look.ids, look.values, look.scores = look.ids[ahead], look.values[ahead], look.scores[ahead]


def _look_deeper(look: _Look, rows: SamplingRows, row: int, nucleus: float) -> None:
    """Bring in every token that could still win, unless those outside the running lie behind the nucleus."""
    floor = max(look.best - NOISE_SPAN, look.scores.max() - NOISE_MAX)
    if rows.min_p[row] > 0:
        floor = max(floor, look.best + np.log(rows.min_p[row]) - np.float32(1e-3))
    if look.floor <= floor or (rows.top_p[row] < 1 and _weights(look.values, look.best).sum() > nucleus * (1 + 1e-5)):
        return
    look.floor, look.ids = floor, np.flatnonzero(look.y >= floor)
    look.values = look.y[look.ids]
    look.scores = look.values.copy()
    seed, position = rows.seeds[row : row + 1], rows.positions[row : row + 1]
    for start in range(0, len(look.ids), _NOISE_CHUNK):
        part = slice(start, start + _NOISE_CHUNK)
        look.scores[part] += gumbel(seed, position, look.ids[part])


def _weights(y: Float32, best: np.float32) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(y.astype(np.float64) - best)
    return weights


def _total(look: _Look) -> float:
    """The sum of exp(y - best) over the top k or the vocabulary; of a vocabulary, within 1e-6."""
    if look.top_k:
        return float(_weights(look.values, look.best).sum())
    return _sum_of_exp(look.y, look.best)


def _in_nucleus(look: _Look, ahead: NDArray[np.bool_], total: float, top_p: float) -> bool:
    """Whether the tokens ahead of one leave room for it in top_p of the probability."""
    if top_p >= 1:
        return True
    before = float(_weights(look.values[ahead], look.best).sum())
    if not look.top_k and abs(before / total - top_p) < 1e-5:  # too close for a sum of float32 weights
        total = float(_weights(look.y, look.best).sum())
    return before / total < top_p


def _sum_of_exp(values: Float32, best: np.float32) -> float:
    """The sum of exp(values - best), with float32 weights."""
    weights = values - best
    return float(np.exp(weights, out=weights).sum(dtype=np.float64))


def _score(logits: Float32, token: int, k: int) -> tuple[float, int, Int64]:
    """Of one row [V]: the log of the sum of exponentials, the token's rank, and the best k ids, ties by lowest id."""
    best = logits.max()
    if not np.isfinite(best):
        best = np.float32(0)
    log_total = float(best) + float(np.log(_sum_of_exp(logits, best)))
    ids = np.flatnonzero(logits >= floor_of_best(logits, k)) if k else np.empty(0, np.int64)
    ids = ids[np.argsort(-logits[ids], kind="stable")][:k]
    return log_total, 1 + int(np.count_nonzero(logits > logits[token])), ids
