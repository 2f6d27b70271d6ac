"""The grouped attention that runs, and the plain twin that defines it, agree on any ragged step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from isotoken.backends.torch.attention import GROUP_BYTES, Geometry, grouped_attention, make_plan
from isotoken.kernels.triton.attention import ragged_attention

KV_HEADS, HEADS, DIM, TILE = 2, 6, 8, 4


def random_step(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Query starts, context lengths and a table of scattered tiles; prompts, chunks, decodes and verifications."""
    num_requests = int(rng.integers(1, 12))
    query_lens = rng.choice([1, 1, 1, 2, 3, 5, 40], num_requests)
    context = query_lens + rng.choice([0, 0, 1, 7, 30, 70], num_requests)
    width = -(-int(context.max()) // TILE)
    num_tiles = num_requests * width + 3
    table = rng.permutation(num_tiles)[: num_requests * width].reshape(num_requests, width).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(query_lens)]).astype(np.int32)
    return starts, context.astype(np.int32), table, num_tiles


@pytest.mark.parametrize("window", [None, 1, 5, 33])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scratch_rows", [0, 4096])
def test_grouped_attention_equals_the_twin(
    seed: int, window: int | None, softcap: float | None, scratch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    monkeypatch.setitem(GROUP_BYTES, "cpu", int(rng.choice([1, 5000, 1 << 20])))  # also force many small groups
    starts, context, table, num_tiles = random_step(rng)
    torch.manual_seed(seed)
    cache = torch.randn(num_tiles + 1, 2 * KV_HEADS, TILE, DIM)
    cache[-1] = 0
    qkv = torch.randn(int(starts[-1]), HEADS + 2 * KV_HEADS, DIM)
    for n, seq_len in enumerate(context):  # the step's own K/V are in the cache already
        for at in range(starts[n], starts[n + 1]):
            position = seq_len - (starts[n + 1] - at)
            cache[table[n, position // TILE], :, position % TILE] = qkv[at, HEADS:]
    geometry = Geometry(
        tile_size=TILE,
        kv_rows=2 * KV_HEADS,
        zero_tile=num_tiles,
        token_bytes=2 * KV_HEADS * DIM * 4,
        device=torch.device("cpu"),
        scratch=torch.empty(scratch_rows, TILE * DIM),
    )
    got = grouped_attention(
        qkv,
        cache,
        make_plan(starts, context, table, geometry),
        num_heads=HEADS,
        scale=0.3,
        window=window,
        softcap=softcap,
    )
    want = ragged_attention(
        qkv[:, :HEADS],
        cache[:, :KV_HEADS],
        cache[:, KV_HEADS:],
        torch.from_numpy(table),
        torch.from_numpy(context),
        torch.from_numpy(starts),
        scale=0.3,
        window=window,
        softcap=softcap,
    )
    torch.testing.assert_close(got, want.flatten(1), rtol=1e-5, atol=1e-5)


def test_a_plan_takes_every_token_once() -> None:
    rng = np.random.default_rng(1)
    starts, context, table, num_tiles = random_step(rng)
    geometry = Geometry(TILE, 2 * KV_HEADS, num_tiles, 64, torch.device("cpu"), torch.empty(0, TILE * DIM))
    plan = make_plan(starts, context, table, geometry)
    ends = [group.tokens.stop for group in plan.groups]
    assert [group.tokens.start for group in plan.groups] == [0, *ends[:-1]]
    assert ends[-1] == starts[-1]
    if plan.order is not None:
        assert sorted(plan.order.tolist()) == list(range(starts[-1]))
        assert plan.inverse is not None
        assert plan.order[plan.inverse].tolist() == list(range(starts[-1]))
