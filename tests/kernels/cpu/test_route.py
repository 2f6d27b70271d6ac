"""Route, Gather and Combine in C++ against their twins, and a whole mixture of experts against plain arithmetic."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from isotoken.kernels.cpu import program as p

from .steps import FORMS, ISAS, aligned, filled_up, make_operand, make_step, parts, random_rows, run


def make_routing(num_tokens: int, num_experts: int, top_k: int) -> p.Routing:
    count = num_tokens * top_k
    return p.Routing(
        num_experts=num_experts,
        top_k=top_k,
        experts=aligned((num_tokens, top_k), np.int32),
        shares=aligned((num_tokens, top_k), np.float32),
        starts=aligned((num_experts + 1,), np.int32),
        tokens=aligned((count,), np.int32),
        places=aligned((num_tokens, top_k), np.int32),
    )


def routed(isa: str, logits: np.ndarray, num_experts: int, top_k: int, normalize: bool, threads: int = 2) -> p.Routing:
    """Run Route over logits [T, ld]."""
    routing = make_routing(len(logits), num_experts, top_k)
    op = p.Route(logits=logits, routing=routing, ld=logits.shape[1], normalize=normalize)
    run(isa, op, make_step([(0, len(logits))]), threads)
    return routing


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 1), (8, 2), (61, 8), (6, 6)])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 37])
def test_route(isa: str, num_experts: int, top_k: int, normalize: bool, num_tokens: int) -> None:
    rng = np.random.default_rng(num_experts)
    logits = random_rows(rng, num_tokens, num_experts)
    logits[-1, :num_experts] = np.arange(num_experts) // 3  # ties go to the lowest index
    expected = routed("twin", logits, num_experts, top_k, normalize).kept
    for threads in (1, 2, 3):
        got = routed(isa, logits, num_experts, top_k, normalize, threads).kept
        for name in ("experts", "starts", "tokens", "places"):
            np.testing.assert_array_equal(got[name], expected[name])
        np.testing.assert_allclose(got["shares"], expected["shares"], rtol=1e-6)
    places, tokens = expected["places"], expected["tokens"]
    assert sorted(places.ravel()) == list(range(num_tokens * top_k))
    np.testing.assert_array_equal(tokens[places], np.arange(num_tokens)[:, None].repeat(top_k, axis=1))


@pytest.mark.parametrize("isa", ISAS)
def test_far_apart_logits(isa: str) -> None:
    logits = np.full((1, 32), -1e4, np.float32)
    logits[0, 5] = 90
    shares = routed(isa, logits, 8, 2, normalize=True).kept
    np.testing.assert_array_equal(shares["experts"], [[0, 5]])
    np.testing.assert_allclose(shares["shares"], [[0, 1]], atol=1e-30)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [p.ROWS_TOKENS, p.ROWS_CHOSEN])
def test_gather(isa: str, form: int, rows: int) -> None:
    num_tokens, size = 11, 70
    rng = np.random.default_rng(5)
    step = make_step([(0, num_tokens)] if rows == p.ROWS_TOKENS else [(0, 30)], logits=range(num_tokens))
    routing = routed("twin", random_rows(rng, num_tokens, 5), 5, 2, normalize=True)
    source = make_operand(form, num_tokens, size)
    for part in parts(source, size):
        part.view(np.uint8)[...] = rng.integers(0, 120, part.view(np.uint8).shape)
    results = []
    for which in (isa, "twin"):
        target = make_operand(form, 2 * num_tokens, size, ld=filled_up(size))
        head = p.Head(rows=rows, routing=ctypes.addressof(routing))
        run(which, p.Gather(head, input=source, out=target, size=size), step)
        results.append(parts(target, size))
    for got, expected, given in zip(*results, parts(source, size), strict=True):
        np.testing.assert_array_equal(got.view(np.uint8), expected.view(np.uint8))
        if got.ndim > 1 and got is results[0][0]:
            np.testing.assert_array_equal(got.view(np.uint8), given[routing.kept["tokens"]].view(np.uint8))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [3, 64, 77])
@pytest.mark.parametrize("threads", [1, 3])
def test_combine(isa: str, size: int, threads: int) -> None:
    num_tokens, top_k = 13, 3
    rng = np.random.default_rng(size)
    routing = routed("twin", random_rows(rng, num_tokens, 7), 7, top_k, normalize=False)
    y = random_rows(rng, num_tokens * top_k, size)
    results = []
    for which in (isa, "twin"):
        out = aligned((num_tokens, size + 2), np.float32, 5)
        head = p.Head(routing=ctypes.addressof(routing))
        op = p.Combine(head, y=y, out=out, size=size, ld_y=y.shape[1], ld_out=size + 2)
        run(which, op, make_step([(0, num_tokens)]), threads)
        results.append(out)
    np.testing.assert_allclose(*results, rtol=1e-6, atol=1e-6)
    shares, places = routing.kept["shares"], routing.kept["places"]
    exact = (shares[..., None].astype(float) * y[places][..., :size]).sum(axis=1)
    np.testing.assert_allclose(results[0][:, :size], exact, rtol=1e-6, atol=1e-6)
    assert (results[0][:, size:] == 5).all()
