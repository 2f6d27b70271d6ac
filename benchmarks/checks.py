"""Are the tokens right? Asked before a speed is reported: a fast wrong answer is a failure, not a number."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from .engines import Isotoken, Run, Transformers
from .workloads import Workload

BOUND = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 1e-2}
"""By how much of the largest logit a 16-bit run may be off: twice that is the margin of a near-tie."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run judged position by position, its own tokens fed to transformers in float32."""

    positions: int
    decided: int  # positions whose margin exceeds twice the bound: only one token is right there
    wrong: int  # of those, the run has another token
    near_ties: int  # the others
    misjudged: int  # of those, the token is below the best by more than twice the bound
    differing: int  # near-ties that fell otherwise than in float32

    @property
    def ok(self) -> bool:
        """Nothing that rounding cannot explain."""
        return self.wrong == 0 and self.misjudged == 0


def token_hash(run: Run) -> str:
    """A short hash of all tokens."""
    return hashlib.sha256(repr(run.tokens).encode()).hexdigest()[:16]


def judge(oracle: Transformers, workload: Workload, run: Run, dtype: str, share: int = 4) -> Verdict:
    """Judge every share-th task of a run; oracle is transformers in float32."""
    counts = np.zeros(6, np.int64)
    for task, tokens in list(zip(workload.tasks, run.tokens, strict=True))[::share]:
        ids = torch.tensor([task.prompt + tokens[:-1]], device=oracle.device)
        with torch.inference_mode():
            logits = oracle.model(input_ids=ids, use_cache=False).logits[0, len(task.prompt) - 1 :].float().cpu()
        best = logits.topk(2).values
        eps = BOUND[dtype] * logits.abs().amax(-1)
        taken = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        decided = best[:, 0] - best[:, 1] > 2 * eps
        other = torch.tensor(tokens) != logits.argmax(-1)
        low = best[:, 0] - taken > 2 * eps
        found = (decided, decided & other, ~decided, ~decided & low, ~decided & other)
        counts += np.array([len(tokens), *(int(part.sum()) for part in found)])
    return Verdict(*counts.tolist())


def check_float32(subject: Isotoken, oracle: Transformers, workload: Workload) -> None:
    """Raise AssertionError unless both give the same tokens in float32."""
    ours, theirs = subject.run(workload), oracle.run(workload)
    for index, (got, want) in enumerate(zip(ours.tokens, theirs.tokens, strict=True)):
        if got != want:
            at = next(i for i, pair in enumerate(zip(got, want, strict=True)) if pair[0] != pair[1])
            raise AssertionError(f"{subject.name}, task {index}: token {at} is {got[at]}, transformers has {want[at]}")
