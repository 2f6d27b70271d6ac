"""Are the tokens right? Asked before a speed is reported: a fast wrong answer is a failure, not a number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .engines import Isotoken, Run, token_hash
from .truth import Float32, Oracle
from .workloads import Task, Workload

BOUND = {"float64": 2e-5, "float32": 2e-5, "float16": 5e-3, "bfloat16": 1e-2}
"""By how much of the largest logit a run in this dtype may be off: twice that is the margin of a near-tie."""

MOST_BELOW = 0.2
"""Of the largest logit: quantised weights whose tokens are further below float32's best, on average, are a fault."""

MAX_JUDGED = 8
"""Requests of a workload that are judged; the others are held to the same hash in every round."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run judged position by position, its own tokens fed to the oracle in float32."""

    positions: int
    decided: int  # positions whose margin exceeds twice the bound: only one token is right there
    wrong: int  # of those, the run has another token
    near_ties: int  # the others
    misjudged: int  # of those, the token is below the best by more than twice the bound
    differing: int  # near-ties that fell otherwise than in float32
    shortfall: float = 0.0  # logits by which the tokens taken are below the best, mean over the positions
    share_below: float = 0.0  # the same in parts of each position's largest logit

    @property
    def ok(self) -> bool:
        """Nothing that rounding cannot explain."""
        return self.wrong == 0 and self.misjudged == 0


@dataclass(frozen=True, slots=True)
class Check:
    """How a run's tokens were checked, and what came of it."""

    kind: Literal["equal", "margins", "alone"]  # to float32's; within rounding of them; to those of each request alone
    ok: bool
    tokens: str  # the hash of all
    verdict: Verdict
    unlike_alone: int = 0  # requests that answer otherwise when they run alone, near-ties left out

    @property
    def text(self) -> str:
        """In a few words."""
        v = self.verdict
        if self.kind == "alone" and v.share_below > MOST_BELOW and not self.unlike_alone:
            return f"WRONG: {v.shortfall:.1f} logits below float32's best on average, which no quantisation explains"
        if self.kind == "alone":
            agreement = "the same alone" if self.ok else f"{self.unlike_alone} requests differ from themselves alone"
            error = (v.wrong + v.differing) / max(v.positions, 1)
            return f"{agreement}; {error:.1%} of {v.positions} tokens unlike float32, {v.shortfall:.3f} logits below"
        if not self.ok:
            return f"WRONG: {v.wrong + v.misjudged} of {v.positions} tokens that rounding cannot explain"
        if not v.differing:
            return f"float32's tokens ({v.positions} judged)"
        near_ties = "a near-tie" if v.differing == 1 else f"{v.differing} near-ties"
        return f"float32's tokens but for {near_ties} ({v.positions} judged)"


class _Judged(NamedTuple):
    """Every array [positions]."""

    best: Float32
    second: Float32
    taken: Float32
    scale: Float32  # the largest logit
    is_best: NDArray[np.bool_]


class _Alone(NamedTuple):
    subject: Isotoken
    answers: dict[tuple[int, ...], tuple[list[int], list[float]]]  # tokens and their margins


@dataclass(slots=True)
class Judge:
    """Judges runs by an oracle. What it found out about a sequence it keeps, for engines mostly agree."""

    oracle: Oracle
    _known: dict[tuple[tuple[int, ...], tuple[int, ...]], _Judged] = field(default_factory=dict)
    _alone: dict[int, _Alone] = field(default_factory=dict)  # by the engine's id, which lives as long as it is in here

    def judge(self, workload: Workload, run: Run, dtype: str) -> Verdict:
        """Judge MAX_JUDGED of the tasks, evenly spread."""
        counts, shortfall, share = np.zeros(6, np.int64), 0.0, 0.0
        for task, tokens in _some(workload, run):
            seen = self._look(task.prompt, tokens)
            eps = BOUND[dtype] * seen.scale
            decided = seen.best - seen.second > 2 * eps
            low = seen.best - seen.taken > 2 * eps
            other = ~seen.is_best
            found = (decided, decided & other, ~decided, ~decided & low, ~decided & other)
            counts += np.array([len(tokens), *(int(part.sum()) for part in found)])
            shortfall += float((seen.best - seen.taken).sum())
            share += float(((seen.best - seen.taken) / seen.scale).sum())
        num = max(int(counts[0]), 1)
        return Verdict(*map(int, counts), shortfall=shortfall / num, share_below=share / num)  # type: ignore[misc]

    def check(self, subject: Isotoken, workload: Workload, run: Run) -> Check:
        """Check a run as its precision allows: see `Check.kind`."""
        verdict = self.judge(workload, run, subject.dtype)
        quantised = subject.settings.get("quantization") is not None
        if quantised:
            unlike = sum(self._differs_alone(subject, task, tokens) for task, tokens in _some(workload, run))
            ok = unlike == 0 and verdict.share_below <= MOST_BELOW
            return Check("alone", ok, token_hash(run), verdict, unlike)
        kind: Literal["equal", "margins"] = "equal" if subject.dtype in ("float32", "float64") else "margins"
        return Check(kind, verdict.ok, token_hash(run), verdict)

    def _look(self, prompt: list[int], tokens: list[int]) -> _Judged:
        key = tuple(prompt), tuple(tokens)
        if key not in self._known:
            logits = self.oracle.logits(prompt, tokens)
            second, best = np.partition(logits, -2, axis=-1)[:, -2:].T
            taken = logits[np.arange(len(tokens)), tokens]
            is_best = logits.argmax(-1) == np.array(tokens)
            self._known[key] = _Judged(best, second, taken, np.abs(logits).max(-1), is_best)
        return self._known[key]

    def _differs_alone(self, subject: Isotoken, task: Task, tokens: list[int]) -> bool:
        """Whether the task alone on the same engine gives other tokens, and the first of them was no near-tie."""
        known = self._alone.setdefault(id(subject), _Alone(subject, {})).answers
        key = (*task.prompt, task.num_tokens)
        if key not in known:
            known[key] = subject.run_alone(task)
        alone, margins = known[key]
        at = next((i for i, pair in enumerate(zip(tokens, alone, strict=True)) if pair[0] != pair[1]), None)
        if at is None:
            return False
        scale = float(self._look(task.prompt, alone).scale[at])
        return margins[at] > 2 * BOUND[subject.dtype] * scale


def _some(workload: Workload, run: Run) -> list[tuple[Task, list[int]]]:
    pairs = list(zip(workload.tasks, run.tokens, strict=True))
    return pairs[:: -(-len(pairs) // MAX_JUDGED)]
