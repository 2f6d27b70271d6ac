"""The program of every family is right, whatever runs it: here the kernels' twins in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from isotoken.backends.native.backend import NativeBackend
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig

from ..driver import run_all
from ..families import FAMILIES, Case
from .twin_executor import Twins

CaseOf = Callable[[str], Case]
SETTINGS: dict[str, Any] = {"max_num_seqs": 8, "max_num_batched_tokens": 96, "num_blocks": 64, "device": "cpu"}
BOUNDS = {"float32": 2e-5, "bfloat16": 5e-2}  # of the largest logit


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_every_family_in_ragged_chunks(family: str, family_case: CaseOf) -> None:
    case = family_case(family)
    config = RunnerConfig(**SETTINGS, dtype="float32", max_model_len=case.max_model_len)
    runner = NativeBackend(Twins).load(Checkpoint.open(case.folder), config)
    bound = BOUNDS["float32"] * max(abs(logits).max() for logits in case.logits)
    answers = run_all(runner, case.sequences, max_chunk=20)
    runner.close()
    for answer, expected in zip(answers, case.logits, strict=True):
        assert abs(answer - expected).max() <= bound
