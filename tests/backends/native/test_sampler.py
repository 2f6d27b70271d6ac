"""The native backend's sampler is a Sampler of the core's: what it returns is what HostSampler would."""

from __future__ import annotations

import numpy as np
import pytest
from isotoken.backends.native.sampler import NativeSampler
from isotoken.core.batch import Sampled
from isotoken.core.sampling import HostSampler
from isotoken.kernels.cpu import library

from ...core.test_sampling import make_rows

if why := library.why_unavailable():
    pytest.skip(why, allow_module_level=True)


@pytest.mark.parametrize("num_logprobs", [-2, 3])
def test_returns_what_the_host_sampler_returns(num_logprobs: int) -> None:
    logits = np.random.default_rng(1).standard_normal((5, 1000), np.float32)
    rows = make_rows(5, temperature=[0, 1, 1, 2, 0.5], target_ids=[-1, -1, 7, -1, -1], num_logprobs=num_logprobs)
    want = HostSampler().sample(logits, rows)
    with library.load().team(2) as team:
        got = NativeSampler(team).sample(logits, rows)
    assert isinstance(got, Sampled)
    for name in ("token_ids", "logprobs", "ranks", "top_ids", "top_logprobs"):
        one, other = getattr(got, name), getattr(want, name)
        assert (one is None) == (other is None)
        if other is not None:
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=2e-6)
