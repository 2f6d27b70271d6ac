"""Embed in C++ against its twin: exactly equal, for every form of table."""

from __future__ import annotations

import numpy as np
import pytest
from isotoken.kernels.cpu import program as p

from .steps import BFLOAT16, ISAS, aligned, filled_up, make_step, run

DTYPES = {p.FORM_F32: np.float32, p.FORM_BF16: BFLOAT16, p.FORM_F16: np.float16}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", DTYPES)
@pytest.mark.parametrize("size", [5, 64, 100])
@pytest.mark.parametrize("scale", [1.0, 11.3125])
def test_embed(isa: str, form: int, size: int, scale: float) -> None:
    rng = np.random.default_rng(size)
    table = rng.standard_normal((50, size)).astype(DTYPES[form])
    table[0] = 1e-6  # subnormal in float16
    step = make_step([(0, 9), (3, 1)])
    step.kept["input_ids"][:] = rng.integers(0, 50, 10)
    step.kept["input_ids"][4] = 0
    results = []
    for which in (isa, "twin"):
        x = aligned((10, filled_up(size) + 8), np.float32, 7)
        op = p.Embed(table=table, x=x, form=form, size=size, ld=x.shape[1], scale=scale)
        run(which, op, step)
        results.append(x)
    np.testing.assert_array_equal(*results)
    exact = table[step.kept["input_ids"]].astype(np.float64) * scale
    np.testing.assert_allclose(results[0][:, :size], exact, rtol=1e-7)
    assert not results[0][:, size : filled_up(size)].any()
    assert (results[0][:, filled_up(size) :] == 7).all()
