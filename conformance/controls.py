"""Negative controls: logits that claim to be float32 and are not. If one gets a certificate, none is worth anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .oracle import Array, Oracle
from .subjects import Subject
from .targets import BOUNDS

Control = Callable[[Subject, list[int], Array], Array]


class RoundingOracle(Oracle):
    """The oracle with the inputs of every matrix product cut to a few bits of mantissa, as some devices do unasked."""

    mantissa = 10  # stored bits: TF32

    def _linear(self, x: Array, weight: Array) -> Array:
        return _cut(x, self.mantissa) @ _cut(weight, self.mantissa).T


def _cut(x: Array, bits: int) -> Array:
    """Round to nearest with so many stored bits of mantissa; exponents as they are."""
    mantissa, exponent = np.frexp(x)
    scale = float(2 ** (bits + 1))
    return np.asarray(np.ldexp(np.rint(mantissa * scale) / scale, exponent))


def tf32(subject: Subject, tokens: list[int], exact: Array) -> Array:
    """Matrix products in TF32."""
    return RoundingOracle(subject.model, subject.weights).trace(tokens).logits


def noise(subject: Subject, tokens: list[int], exact: Array) -> Array:
    """Float32's bound, overstepped by half at one logit of each row."""
    shaken = exact.copy()
    rows = np.arange(len(exact))
    shaken[rows, rows % exact.shape[1]] += 1.5 * BOUNDS["float32"] * abs(exact).max(axis=1)
    return shaken


def one_swap(subject: Subject, tokens: list[int], exact: Array) -> Array:
    """Exact, but for the best two logits of the one position with the smallest margin that is decided: exchanged."""
    first, second = np.sort(exact, axis=1)[:, :-3:-1].T
    margin = (first - second) / abs(exact).max(axis=1)
    row = int(np.where(margin > 2 * BOUNDS["float32"], margin, np.inf).argmin())
    swapped = exact.copy()
    best, next_best = np.argsort(-exact[row])[:2]
    swapped[row, [best, next_best]] = exact[row, [next_best, best]]
    return swapped


CONTROLS: Mapping[str, Control] = {"TF32 products": tf32, "noise of 1.5 bounds": noise, "one token exchanged": one_swap}
"""By name; the first line of each docstring says what it does."""
