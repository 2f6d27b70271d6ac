"""What a run of a window of rows is told, in the two forms of the graph that keep rows: gqa and standard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..onnx_graph import ragged_inputs

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Inputs = dict[str, NDArray[np.int64] | NDArray[np.int32]]


@dataclass(frozen=True, slots=True, eq=False)
class Onward:
    """One more token of every row of a window, whose last run was one token of each as well."""

    tokens: Int32  # [n]
    positions: Int32  # [n] their own
    longest: int  # the largest length, this token included
    places: Int64  # [n] their rows
    where: Int64 | slice  # the same, or all where they stand in order


Form = Callable[[Int64, "Int64 | slice", Int64], Inputs]
"""(ids [B, S], places, ends) -> the graph's inputs besides logits_indices and the cache.

`ends` [n] are the lengths, this run's tokens included, of the rows at `places` of the B. The others are holes: a token
of theirs is computed too (S is 1 then), where it does not disturb or where the caller puts back what was there.
"""


def gqa_inputs(ids: Int64, places: Int64 | slice, ends: Int64) -> Inputs:
    """Return the inputs of the form gqa. Holes are as if empty: their token is written to position 0."""
    seqlens = np.zeros(len(ids), np.int32)
    seqlens[places] = ends - 1
    return {"input_ids": ids, "seqlens_k": seqlens, "total_sequence_length": np.array(ends.max(), np.int32)}


def advance_gqa(bound: Mapping[str, NDArray[Any]], step: Onward) -> None:
    """Write the inputs of form gqa in place, after a run that took the same rows to the position before."""
    bound["input_ids"][step.where, 0] = step.tokens
    bound["seqlens_k"][step.where] = step.positions
    bound["total_sequence_length"][()] = step.longest


def standard_form(spare: int) -> Form:
    """Return the form standard for rows with a spare position, at which holes write their token and see only that."""

    def inputs(ids: Int64, places: Int64 | slice, ends: Int64) -> Inputs:
        count, width = ids.shape
        past = np.full(count, spare)
        past[places] = ends - width
        found = ragged_inputs([width] * count, past.tolist(), masked=False)
        lens = np.ones(count, np.int64)
        lens[places] = ends
        return {**found, "input_ids": ids.reshape(-1), "nonpad_kv_seqlen": lens}

    return inputs
