"""Are the tokens right? Asked before a speed is reported: a fast wrong answer is a failure, not a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.precision import BOUNDS, Precision
from .engines import Isotoken, Run, token_hash
from .truth import Float32, Oracle
from .workloads import Task, Workload

BOUND = {dtype: max(bound, BOUNDS["float32"]) for dtype, bound in BOUNDS.items()}
"""By how much of the largest logit a run in this dtype may be off: twice that is the margin of a near-tie. The oracle
computes in float32."""

MEAN_PART = 0.05
"""Of the bound: in reduced precision a token is that much below the best at most, in the mean of all positions, for few
errors come near the bound, and only some of those turn a token."""

MOST_BELOW = 0.2
"""Of the largest logit: weights of a kind that nobody defined, whose tokens are further below float32's best, on
average, are a fault."""

MAX_JUDGED = 8
"""Requests of a workload that are judged; the others are held to the same hash in every round."""


Kind = Literal["equal", "margins", "rounded", "alone"]
"""What tokens were held to: float32's; those within rounding of them; those within rounding of what the quantised
weights give, and of each request alone as well; the last alone."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run judged position by position, its own tokens fed to an oracle."""

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

    kind: Kind
    ok: bool
    tokens: str  # the hash of all
    verdict: Verdict
    unlike_alone: int = 0  # requests that answer otherwise when they run alone, near-ties left out
    bound: float = 0.0  # of kind margins and rounded: see MEAN_PART
    plain: Verdict | None = None  # of kind rounded: the tokens held to those of the weights as they were

    @property
    def text(self) -> str:
        """In a few words."""
        v = self.verdict
        if self.kind == "rounded":
            return self._of_rounded
        if self.kind == "alone" and v.share_below > MOST_BELOW and not self.unlike_alone:
            return f"WRONG: {v.shortfall:.1f} logits below float32's best on average, which no quantisation explains"
        if self.kind == "alone":
            agreement = "the same alone" if self.ok else f"{self.unlike_alone} requests differ from themselves alone"
            error = (v.wrong + v.differing) / max(v.positions, 1)
            return f"{agreement}; {error:.1%} of {v.positions} tokens unlike float32, {v.shortfall:.3f} logits below"
        return self._of_verdict("float32's tokens")

    def _of_verdict(self, due: str) -> str:
        v = self.verdict
        if not v.ok:
            return f"WRONG: {v.wrong + v.misjudged} of {v.positions} tokens that rounding cannot explain"
        if v.share_below > MEAN_PART * self.bound > 0:
            return f"WRONG: {v.shortfall:.3f} logits below the best on average, which rounding does not explain"
        if not v.differing:
            return f"{due} ({v.positions} judged)"
        near_ties = "a near-tie" if v.differing == 1 else f"{v.differing} near-ties"
        return f"{due} but for {near_ties} ({v.positions} judged)"

    @property
    def _of_rounded(self) -> str:
        assert self.plain is not None
        error = (self.plain.wrong + self.plain.differing) / max(self.plain.positions, 1)
        quality = f"{error:.1%} unlike float32's, {self.plain.shortfall:.3f} logits below"
        if self.unlike_alone:
            return f"{self.unlike_alone} requests differ from themselves alone; {quality}"
        return self._of_verdict("the rounded weights' tokens") + f"; {quality}"


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
    """Judges runs by an oracle. What it found out about a sequence it keeps, for engines mostly agree.

    `rounded` gives the oracle of quantised weights, or None where there is none: then an engine with such weights is
    held to what it says to each request alone.
    """

    oracle: Oracle
    rounded: Callable[[str], Oracle | None] = lambda _: None
    _known: dict[tuple[int, tuple[int, ...], tuple[int, ...]], _Judged] = field(default_factory=dict)
    _alone: dict[int, _Alone] = field(default_factory=dict)  # by the engine's id, which lives as long as it is in here

    def judge(self, workload: Workload, run: Run, dtype: str) -> Verdict:
        """Judge MAX_JUDGED of the tasks, evenly spread."""
        return self._judge(self.oracle, workload, run, BOUND[dtype])

    def _judge(self, oracle: Oracle, workload: Workload, run: Run, bound: float) -> Verdict:
        counts, shortfall, share = np.zeros(6, np.int64), 0.0, 0.0
        for task, tokens in _some(workload, run):
            seen = self._look(oracle, task.prompt, tokens)
            eps = bound * seen.scale
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
        quantization = subject.settings.get("quantization")
        if quantization is not None:
            return self._check_quantised(subject, workload, run, verdict, quantization)
        if subject.dtype in ("float32", "float64"):
            return Check("equal", verdict.ok, token_hash(run), verdict)
        bound = BOUND[subject.dtype]
        ok = verdict.ok and verdict.share_below <= MEAN_PART * bound
        return Check("margins", ok, token_hash(run), verdict, bound=bound)

    def _check_quantised(
        self, subject: Isotoken, workload: Workload, run: Run, plain: Verdict, quantization: str
    ) -> Check:
        unlike = sum(self._differs_alone(subject, task, tokens) for task, tokens in _some(workload, run))
        oracle = self.rounded(quantization)
        if oracle is None:
            ok = unlike == 0 and plain.share_below <= MOST_BELOW
            return Check("alone", ok, token_hash(run), plain, unlike)
        bound = Precision(subject.dtype, quantization).tie
        verdict = self._judge(oracle, workload, run, bound)
        ok = unlike == 0 and verdict.ok and verdict.share_below <= MEAN_PART * bound
        return Check("rounded", ok, token_hash(run), verdict, unlike, bound, plain)

    def _look(self, oracle: Oracle, prompt: list[int], tokens: list[int]) -> _Judged:
        key = id(oracle), tuple(prompt), tuple(tokens)
        if key not in self._known:
            logits = oracle.logits(prompt, tokens)
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
        scale = float(self._look(self.oracle, task.prompt, alone).scale[at])
        return margins[at] > 2 * BOUND[subject.dtype] * scale


def _some(workload: Workload, run: Run) -> list[tuple[Task, list[int]]]:
    pairs = list(zip(workload.tasks, run.tokens, strict=True))
    return pairs[:: -(-len(pairs) // MAX_JUDGED)]
