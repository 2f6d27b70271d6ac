"""What tokens must not depend on: INV in SPEC.md."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from isotoken.conformance.cases import Case, goldens
from isotoken.conformance.drafters import replay
from isotoken.conformance.lab import MAX_MODEL_LEN, Lab
from isotoken.conformance.models import LLAMA
from isotoken.conformance.service import Service, Setup, serve
from isotoken.conformance.spec import spec
from isotoken.conformance.test_greedy import named

ALL = goldens("llama")
SHORT = [c for c in ALL if c.name in ("greedy-short", "greedy-block", "seeded", "seeded-filtered", "greedy-prefix")]
windowed = pytest.mark.parametrize("model", ["llama", "gemma2"])


def blocks_for(lab: Lab, tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // lab.runner().info.block_size)


@spec("INV-1")
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_alone(lab: Lab, case: Case) -> None:
    serve(lab, [case], prefix_caching=False)


@spec("INV-1")
@windowed
@pytest.mark.parametrize("size", [2, 3, 8])
def test_in_batches_of_any_size(lab: Lab, model: str, size: int) -> None:
    serve(lab, goldens(model), model=model, max_num_seqs=size)


@spec("INV-2")
@pytest.mark.parametrize("seed", range(3))
def test_order_and_times_of_arrival(lab: Lab, seed: int) -> None:
    cases = random.Random(seed).sample(ALL, len(ALL))
    serve(lab, cases, every=seed * 2, max_num_seqs=5)


@spec("INV-3")
@windowed
@pytest.mark.parametrize("budget", [1, 7, 16, 33])
def test_chunk_sizes(lab: Lab, model: str, budget: int) -> None:
    cases = goldens(model) if budget > 1 else goldens(model)[:2]
    serve(lab, cases, model=model, max_num_batched_tokens=budget)


@spec("INV-4")
@windowed
@pytest.mark.parametrize("size", [1, 4, 32])
def test_block_sizes(lab: Lab, model: str, size: int) -> None:
    count = 96 * 16 // size
    granted = lab.runner(model, block_size=size, num_blocks=count).info.block_size
    if granted == lab.runner(model).info.block_size and granted != size:
        pytest.skip(f"the runner has blocks of {granted} only")
    serve(lab, goldens(model), model=model, block_size=size, runner_blocks=count)


def needs_a_cache(lab: Lab) -> bool:
    """Skip where prefixes are never found again; whether they are copied from row to row, to the token."""
    copied = lab.runner().info.block_size >= lab.runner().info.max_model_len
    lab.need("block_copies" if copied else "prefix_caching")
    return copied


@spec("INV-5")
def test_cold_warm_and_off(lab: Lab) -> None:
    copied = needs_a_cache(lab)
    cases = ALL[:4] if copied else ALL  # rows may be few
    service = serve(lab, cases)
    again = [replace(case, name=f"{case.name} again") for case in cases]
    service.serve(again)
    size = service.info.block_size
    for case in again:
        found, known = service.ended[case.name].num_cached_tokens, len(case.prompt) - 1
        if copied:  # from a row that another request may have taken for what the two share
            assert min(known // 16, 1) * 16 <= found <= known, f"{case.name} found {found} of {known}"
        else:
            assert found == known // size * size, f"{case.name} found {found} of {known}"
    off = serve(lab, cases, prefix_caching=False)
    assert not any(output.num_cached_tokens for output in off.ended.values())


@spec("INV-6")
@windowed
def test_wholly_cached_prompt(lab: Lab, model: str) -> None:
    size = 1 if needs_a_cache(lab) else lab.runner(model).info.block_size
    base = next(c for c in goldens(model) if c.name == "greedy-long")
    if size > len(base.prompt):
        pytest.skip(f"no prompt here fills a block of {size}")
    case = base.but("whole", prompt=base.prompt[: len(base.prompt) // size * size])
    service = serve(lab, [case], model=model)
    service.serve([replace(case, name="whole again")])
    assert service.ended["whole again"].num_cached_tokens == len(case.prompt) - size


@spec("INV-7")
def test_evicted(lab: Lab) -> None:
    copied = needs_a_cache(lab)
    room = blocks_for(lab, 120)
    service = Service(lab, Setup(num_blocks=room))
    service.serve([named("greedy-long")])
    service.serve([replace(c, name=f"{c.name} 2") for c in SHORT])
    service.serve([replace(named("greedy-long"), name="greedy-long 3")])
    size = 1 if copied else service.info.block_size
    assert service.ended["greedy-long 3"].num_cached_tokens < 99 // size * size or size > 16, "nothing was evicted"


@spec("INV-8")
@windowed
def test_the_same_prompt_at_once(lab: Lab, model: str) -> None:
    twins = [replace(c, name=f"{c.name} {i}") for c in goldens(model)[:3] for i in range(3)]
    serve(lab, twins, model=model, max_num_batched_tokens=24)
    serve(lab, twins, model=model, every=1)


@spec("INV-9")
def test_salts_share_nothing(lab: Lab) -> None:
    needs_a_cache(lab)
    case = named("greedy-long")
    service = serve(lab, [replace(case, name="a", cache_salt=b"a")])
    service.serve([replace(case, name="b", cache_salt=b"b")])
    service.serve([replace(case, name="none")])
    service.serve([replace(case, name="a again", cache_salt=b"a")])
    cached = {name: service.ended[name].num_cached_tokens for name in ("a", "b", "none", "a again")}
    assert cached["a"] == cached["b"] == cached["none"] == 0 < cached["a again"]


@spec("INV-10")
@windowed
@pytest.mark.parametrize("prefix_caching", [True, False], ids=["cache", "no cache"])
def test_preemption(lab: Lab, model: str, prefix_caching: bool) -> None:
    longest = max(len(c.prompt) + c.params.max_tokens for c in goldens(model))
    setup = Setup(model=model, prefix_caching=prefix_caching, num_blocks=blocks_for(lab, longest))
    service = Service(lab, setup)
    service.serve(goldens(model))
    short = [c for c in goldens(model) if len(c.prompt) < 60]
    most = 80 if lab.target.exact else max(len(c.prompt) + c.params.max_tokens for c in short)  # others end elsewhere
    tighter = Service(lab, replace(setup, num_blocks=blocks_for(lab, most), every=1))
    tighter.serve(short)
    if lab.runner(model).info.block_size <= 16:
        assert service.num_preemptions + tighter.num_preemptions > 0, "nothing was preempted"


@spec("INV-11")
@pytest.mark.parametrize("scheduler", ["naive", "static", "continuous"])
def test_schedulers(lab: Lab, scheduler: str) -> None:
    serve(lab, ALL, scheduler=scheduler, max_num_seqs=4)


@spec("INV-12")
@windowed
@pytest.mark.parametrize("prefix_caching", [True, False], ids=["copies", "no copies"])
def test_contiguous_cache(lab: Lab, model: str, prefix_caching: bool) -> None:
    setup = Setup(model=model, kv_cache="contiguous", prefix_caching=prefix_caching)
    service = Service(lab, setup)
    if service.info.block_size < MAX_MODEL_LEN:
        pytest.skip(f"the runner has blocks of {service.info.block_size} only")
    service.serve(goldens(model))
    again = [replace(case, name=f"{case.name} again") for case in goldens(model)]
    service.serve(again)
    if prefix_caching and lab.can.block_copies:
        assert any(service.ended[case.name].num_cached_tokens for case in again), "no prefix was found"


@spec("INV-13")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_replay_after_restart(lab: Lab, share: float) -> None:
    begun = []
    for case in ALL:
        tokens = case.tokens or ()
        begun.append(replace(case, done=tokens[: min(int(share * len(tokens)), len(tokens) - 1)]))
    serve(lab, begun)
    serve(lab, begun[:5], num_blocks=blocks_for(lab, 120), max_num_batched_tokens=20)


@spec("INV-15")
@pytest.mark.parametrize("seed", range(6))
def test_everything_at_random(lab: Lab, seed: int) -> None:
    dice = random.Random(seed)
    model = dice.choice(["llama", "llama", "gemma2", "moe"])
    pool = goldens(model)
    cases = [replace(dice.choice(pool), name=f"r{i}", cache_salt=dice.choice([b"", b"x"])) for i in range(14)]
    known = {case.name: case.tokens or () for case in cases}
    drafter = replay(known, count=dice.choice([2, 5]), right=dice.choice([0.0, 0.7, 1.0]))
    setup = {
        "model": model,
        "scheduler": dice.choice(["continuous", "adaptive", "static"]),
        "prefix_caching": dice.random() < 0.7,
        "drafter": drafter if lab.can.speculative and dice.random() < 0.6 else None,
        "max_num_seqs": dice.choice([2, 5, 8]),
        "max_num_batched_tokens": dice.choice([8, 29, 200]),
        "num_blocks": dice.choice([0, blocks_for(lab, 120), blocks_for(lab, 200)]),
        "every": dice.choice([0, 1, 4]),
    }
    print(f"seed {seed}: {setup}")
    serve(lab, cases, **setup)


@spec("INV-1")
def test_vocabulary_is_the_models(lab: Lab) -> None:
    service = serve(lab, SHORT)
    assert all(token < LLAMA.vocab_size for tokens in service.tokens.values() for token in tokens)
