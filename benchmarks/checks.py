"""Are the tokens those of transformers? The rest of the checking is `isotoken.api.bench.checks`."""

from __future__ import annotations

from isotoken.api.bench.checks import Judge, Verdict
from isotoken.api.bench.workloads import Workload

from .engines import Isotoken, Run, Transformers


def judge(oracle: Transformers, workload: Workload, run: Run, dtype: str) -> Verdict:
    """Judge a share of a run's tasks, position by position; oracle is transformers in float32."""
    return Judge(oracle).judge(workload, run, dtype)


def check_float32(subject: Isotoken, oracle: Transformers, workload: Workload) -> None:
    """Raise AssertionError unless both give the same tokens in float32."""
    ours, theirs = subject.run(workload), oracle.run(workload)
    for index, (got, want) in enumerate(zip(ours.tokens, theirs.tokens, strict=True)):
        if got != want:
            at = next(i for i, pair in enumerate(zip(got, want, strict=True)) if pair[0] != pair[1])
            raise AssertionError(f"{subject.name}, task {index}: token {at} is {got[at]}, transformers has {want[at]}")
