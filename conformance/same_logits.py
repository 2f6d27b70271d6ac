"""Level 0: given equal logits, the samplers of all backends draw equal tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.batch import SamplingRows
from ..core.interfaces import ModelRunner, Sampler
from ..core.sampling import HostSampler
from ..core.types import DecodeParams
from .draw import draw
from .oracle import Array
from .rig import Rig, greedy_rows, on_host

PARAMS = (
    DecodeParams(temperature=0.0),
    DecodeParams(temperature=1.0),
    DecodeParams(temperature=0.7, top_k=20),
    DecodeParams(temperature=1.3, top_p=0.9),
    DecodeParams(temperature=1.0, min_p=0.05),
    DecodeParams(temperature=0.9, top_k=40, top_p=0.95, min_p=0.01),
)
ROWS = 4  # a call


@dataclass(slots=True)
class Agreement:
    """Of one backend's sampler with the rules, on logits that are not its own."""

    draws: int = 0
    ties: int = 0  # draws whose two best scores lie within 1e-5: logarithms differ in the last bit between libraries
    wrong: int = 0  # other draws that gave another token than the rules
    absent: str = ""  # why it could not be asked, if so


class Hand:
    """A runner's sampler, and logits of the kind that it reads into which any values can be written."""

    def __init__(self, runner: ModelRunner) -> None:
        rig = Rig(runner)
        self.sampler: Sampler = runner.sampler or HostSampler()
        self.logits: Any = runner.forward(rig.batch([(rig.strand([3 + i], row_id=i), 1, 1) for i in range(ROWS)]))
        self._view = np.asarray(self.logits)  # shares the memory, or `draw` finds that it does not

    def refuses(self, logits: Array) -> str:
        """Why float32 logits [ROWS, V] cannot be handed to the sampler; nothing if they can."""
        self._view[:] = logits
        return "" if np.array_equal(on_host(self.logits), logits) else "other values cannot be written into its logits"

    def draw(self, logits: Array, rows: SamplingRows) -> list[int]:
        """Tokens for float32 logits [ROWS, V]."""
        self._view[:] = logits
        tokens: list[int] = self.sampler.sample(self.logits, rows).token_ids.tolist()
        return tokens


def agree(hands: Sequence[Hand], logits: Array) -> list[Agreement]:
    """Let every sampler draw from the same rows [T, V], and compare with the rules, position by position."""
    rows = logits.astype(np.float32).astype(np.float64)
    found = [Agreement(absent=hand.refuses(rows[:ROWS])) for hand in hands]
    asked = [(hand, agreement) for hand, agreement in zip(hands, found, strict=True) if not agreement.absent]
    for turn, start in enumerate(range(0, len(rows) - ROWS + 1, ROWS)):
        mine = rows[start : start + ROWS]
        params = [replace(PARAMS[(turn + i) % len(PARAMS)], seed=start + i) for i in range(ROWS)]
        drawn = [draw(x, p, start + i, 1e-6) for i, (x, p) in enumerate(zip(mine, params, strict=True))]
        how = _rows(params, start)
        for hand, agreement in asked:
            tokens = hand.draw(mine, how)
            agreement.draws += ROWS
            agreement.ties += sum(not d.decided for d in drawn)
            agreement.wrong += sum(d.decided and t != d.token for d, t in zip(drawn, tokens, strict=True))
    return found


def _rows(params: Sequence[DecodeParams], position: int) -> SamplingRows:
    return greedy_rows(
        len(params),
        temperature=np.array([p.temperature for p in params], np.float32),
        top_k=np.array([p.top_k for p in params], np.int32),
        top_p=np.array([p.top_p for p in params], np.float32),
        min_p=np.array([p.min_p for p in params], np.float32),
        seeds=np.array([p.seed for p in params], np.uint64),
        positions=np.arange(position, position + len(params), dtype=np.int64),
    )
