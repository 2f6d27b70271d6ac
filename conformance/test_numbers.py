"""Teacher-forced certificates along the goldens: NUM in SPEC.md."""

from __future__ import annotations

import numpy as np
import pytest
from isotoken.conformance.cases import goldens
from isotoken.conformance.judge import tie_of
from isotoken.conformance.lab import Lab
from isotoken.conformance.models import MODELS
from isotoken.conformance.spec import spec


@spec("NUM-1", "NUM-2", "NUM-3")
@pytest.mark.parametrize("model", list(MODELS))
def test_certificate(lab: Lab, model: str) -> None:
    """Feed each golden token by token: bounded logits everywhere, the oracle's argmax wherever it is decided."""
    decided = near = 0
    errors: list[float] = []
    for case in goldens(model):
        tokens, start = [*case.prompt, *(case.tokens or ())], len(case.prompt)
        rig = lab.rig(model)
        strand = rig.strand(tokens)
        got = rig.feed(strand, [start] + [1] * (len(tokens) - start), all_rows=False)
        lab.check_logits(got, tokens, range(start - 1, len(tokens)), model)
        trace = lab.trace(model, tokens)
        for mine, row in zip(got, range(start - 1, len(tokens)), strict=True):
            exact = trace.logits[row]
            second, first = np.sort(exact)[-2:]
            margin, tie = first - second, tie_of(trace, row, lab.target.precision)
            errors.append(float(abs(mine - exact).max() / abs(exact).max()))
            if margin <= 2 * tie or trace.routing[row] <= lab.target.precision.routing_bound:
                near += 1
                lab.tally.flips += int(mine.argmax() != exact.argmax())
                continue
            decided += 1
            assert mine.argmax() == exact.argmax(), (
                f"{model}, {case.name}, position {row}: argmax is {mine.argmax()}, the oracle's {exact.argmax()}; "
                f"margin {margin:.4g}, twice {tie:.3g} decides, largest logits difference {abs(mine - exact).max():.3g}"
            )
    lab.tally.decided += decided
    lab.tally.near_ties += near
    due = lab.target.precision.least_decided
    assert decided >= due * (decided + near), f"only {decided} of {decided + near} positions are decided"
    mean, bound = float(np.mean(errors)), lab.target.precision.bound
    assert mean <= bound / 2, f"the mean error is {mean:.3g}, more than half of the bound of {bound:.3g}: not rounding"
