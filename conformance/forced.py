"""Teacher forcing: a runner's logits at every position of given sequences, several sequences at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.capabilities import Capabilities
from ..core.interfaces import ModelRunner
from .rig import Rig

Float32 = NDArray[np.float32]
DECODES = 32
"""Positions at the end of each sequence that are computed one by one, all sequences together."""


def force(runner: ModelRunner, can: Capabilities, sequences: Sequence[Sequence[int]]) -> list[Float32]:
    """Compute the logits [T, V] of each sequence: its beginning as a prompt in large pieces, its end by decodes.

    At most max_num_seqs sequences; a runner that gives one row of a request at a time decodes them all.
    """
    rig = Rig(runner)
    strands = [rig.strand(tokens, row_id=row) for row, tokens in enumerate(sequences)]
    several = bool(can.speculative) and bool(can.prompt_logprobs)
    found: list[list[NDArray[np.float64]]] = [[] for _ in strands]
    most = min(runner.info.max_num_batched_tokens, runner.info.max_num_logits)
    for index, strand in enumerate(strands):
        prompt = len(strand.tokens) - DECODES if several else 1
        while strand.computed < prompt:
            count = min(most, prompt - strand.computed)
            found[index] += rig.step([(strand, count, count)])
    while left := [i for i, strand in enumerate(strands) if strand.computed < len(strand.tokens)]:
        for index, rows in zip(left, rig.step([(strands[i], 1, 1) for i in left]), strict=True):
            found[index].append(rows)
    return [np.concatenate(rows).astype(np.float32) for rows in found]
