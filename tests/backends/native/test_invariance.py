"""The compiled kernels give every position the same bits, in any company, chunks, place and number of threads."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from isotoken.backends.native.runner import NativeRunner
from isotoken.conformance.rig import Array, Rig, Strand
from isotoken.core.checkpoint import Checkpoint
from isotoken.kernels.cpu import library

from .helpers import load, load_on_twins

Models = Callable[[str], Checkpoint]
FORMS: list[dict[str, Any]] = [
    {"dtype": "float32"},
    {"dtype": "bfloat16"},
    {"dtype": "float32", "quantization": "int8"},
    {"dtype": "bfloat16", "quantization": "int8"},
    {"dtype": "bfloat16", "quantization": "int4"},
    {"dtype": "float32", "quantization": "w8a8"},
    {"dtype": "bfloat16", "quantization": "w8a8"},
    {"dtype": "bfloat16", "quantization": "w4a8"},
    {"dtype": "float32", "kv_cache_dtype": "int8"},
    {"dtype": "bfloat16", "kv_cache_dtype": "int8"},
]
LENGTHS = (1, 15, 16, 17, 33, 48, 70)


def instruction_sets() -> tuple[str, ...]:
    """All that run here, the best first: one test that is skipped where there are no kernels."""
    try:
        return library.load().isas
    except library.LibraryError:
        return ("auto",)


ISAS = instruction_sets()
CASES = [(model, ISAS[0]) for model in ("llama", "gemma2", "moe")] + [("llama", isa) for isa in ISAS[1:]]


def name_of(form: dict[str, Any]) -> str:
    return "-".join(form.values())


def stories(vocab_size: int) -> list[list[int]]:
    dice = random.Random(7)
    return [[dice.randrange(vocab_size) for _ in range(length)] for length in LENGTHS]


def alone(runner: NativeRunner, tokens: list[int]) -> Array:
    """Logits of every position, all at once."""
    rig = Rig(runner)
    return rig.step([(rig.strand(tokens), len(tokens), len(tokens))])[0]


def in_company(runner: NativeRunner, told: list[list[int]], dice: random.Random) -> list[Array]:
    """The same logits out of steps that take any of the stories, in any order, blocks and chunks; decodes often."""
    free = dice.sample(range(runner.info.num_blocks), runner.info.num_blocks)
    strands = [
        Strand(tokens, [free.pop() for _ in range(-(-len(tokens) // runner.info.block_size))], row_id=i)
        for i, tokens in enumerate(told)
    ]
    rig = Rig(runner)
    found: list[list[Array]] = [[] for _ in told]
    while unfinished := [i for i, strand in enumerate(strands) if strand.computed < len(strand.tokens)]:
        chosen = dice.sample(unfinished, dice.randint(1, len(unfinished)))
        work = []
        for i in chosen:
            left = len(strands[i].tokens) - strands[i].computed
            count = min(left, dice.choice([1, 1, 1, 2, 5, 16, 40]))
            work.append((strands[i], count, count))
        for i, rows in zip(chosen, rig.step(work), strict=True):
            found[i].append(rows)
    return [np.concatenate(rows) for rows in found]


@pytest.mark.parametrize("form", FORMS, ids=name_of)
@pytest.mark.parametrize(("model", "isa"), CASES)
def test_no_bit_depends_on_company_chunks_place_or_threads(
    models: Models, model: str, isa: str, form: dict[str, Any]
) -> None:
    source, options = models(model), {"isa": isa}
    told = stories(source.spec.vocab_size)
    first = load(source, **form, num_threads=1, options=options)
    assert first._executor.isa == isa
    due = [alone(first, tokens) for tokens in told]
    first.close()
    for threads, block_size, seed in ((1, 16, 1), (2, 32, 2), (3, 16, 3)):
        runner = load(source, **form, num_threads=threads, block_size=block_size, options=options)
        for got, want in zip(in_company(runner, told, random.Random(seed)), due, strict=True):
            assert np.array_equal(got, want), f"{threads} threads, blocks of {block_size}, seed {seed}"
        runner.close()


@pytest.mark.parametrize("form", FORMS[:2], ids=name_of)
def test_rows_that_nobody_asked_for_change_nothing(models: Models, form: dict[str, Any]) -> None:
    """The last layer skips them."""
    source = models("qwen3")
    tokens = stories(source.spec.vocab_size)[-1]
    runner = load(source, **form)
    due = alone(runner, tokens)
    rig = Rig(runner)
    strand = rig.strand(tokens)
    assert rig.step([(strand, 30, 0)])[0].shape[0] == 0
    rows = np.concatenate([rig.step([(strand, 20, 3)])[0], rig.step([(strand, 20, 1)])[0]])
    assert np.array_equal(rows, due[[47, 48, 49, 69]])
    runner.close()


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_the_same_batch_again_and_dirty_blocks(models: Models, form: dict[str, Any]) -> None:
    """A forward may be repeated, and what earlier owners left in the cache, NaN included, is never read."""
    source = models("gemma2")
    tokens = stories(source.spec.vocab_size)[-1]
    runner = load(source, **form)
    due = alone(runner, tokens)
    for memory in runner._parts.caches._all:
        memory.view(np.uint8)[:] = 0xFF
    rig = Rig(runner)
    batch = rig.batch([(rig.strand(tokens), len(tokens), len(tokens))])
    first = runner.forward(batch).copy()
    assert np.array_equal(first, due)
    assert np.array_equal(runner.forward(batch), first)
    runner.close()


def test_every_instruction_set_of_this_machine_is_near_the_twins(models: Models) -> None:
    """Bits may differ between instruction sets; answers may not."""
    source = models("moe")
    load(source).close()  # skips where there are no kernels
    tokens = stories(source.spec.vocab_size)[-1]
    for form, bound in (({"dtype": "float32"}, 2e-5), ({"dtype": "bfloat16"}, 2e-2)):
        twins = load_on_twins(source, **form)
        due = alone(twins, tokens)
        for isa in library.load().isas:
            runner = load(source, **form, options={"isa": isa})
            assert abs(alone(runner, tokens) - due).max() <= bound * abs(due).max(), isa
            runner.close()
