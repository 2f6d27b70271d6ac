"""Logits are the same bits in any company, row, chunks and number of threads, in float32 and with quantised weights."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from isotoken.backends.onnxruntime.backend import OnnxRuntimeBackend
from isotoken.core.checkpoint import Checkpoint
from isotoken.models import BUILTIN

from .helpers import Story, alone, load, stories, together

Models = Callable[[str], Checkpoint]


@pytest.mark.parametrize(
    "settings",
    [{}, {"quantization": "int8"}, {"quantization": "int4"}, {"kv_cache_dtype": "float16"}],
    ids=lambda settings: next(iter(settings.values()), "float32"),
)
@pytest.mark.parametrize("model", ["llama", "gemma2", "qwen3", "moe"])
def test_bits_depend_on_nothing_that_is_declared(models: Models, model: str, settings: dict[str, str]) -> None:
    assert OnnxRuntimeBackend().capabilities.invariant_to >= {"company", "placement", "chunking", "threads"}
    quiet = load(models(model), **settings)
    busy = [load(models(model), **settings, num_threads=n) for n in (1, 2)]
    for seed in range(6):
        print(f"seed {seed}")
        dice = random.Random(seed)
        told = stories(dice, dice.randint(2, 12), quiet.info.vocab_size)
        due = [alone(quiet, story) for story in told]
        for found, story, rows in zip(together(busy[seed % 2], told, dice), told, due, strict=True):
            assert np.array_equal(found, rows), f"{len(story.prompt)} prompt tokens: {abs(found - rows).max()}"
    for runner in (quiet, *busy):
        runner.close()


def test_recomputation_is_not_declared_for_good_reason(models: Models) -> None:
    """If this fails, the runtime has become better than the declaration: declare it."""
    assert "recomputation" not in OnnxRuntimeBackend().capabilities.invariant_to
    runner = load(models("llama"))
    told = stories(random.Random(1), 20, runner.info.vocab_size)
    decoded = [alone(runner, story)[-1] for story in told]
    prompted = [alone(runner, type(story)(story.tokens, []))[-1] for story in told]
    assert any(not np.array_equal(one, other) for one, other in zip(decoded, prompted, strict=True))
    assert max(abs(one - other).max() for one, other in zip(decoded, prompted, strict=True)) < 1e-4
    runner.close()


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_threads_that_really_share_the_work_change_no_bit(quantization: str | None) -> None:
    """The suite's matrices are too small to be cut among threads; those of the built-in model are not."""
    source = Checkpoint.open(BUILTIN["isotoken-small"])
    found = []
    for threads in (1, 2, 3):
        runner = load(source, quantization=quantization, num_threads=threads, max_model_len=256, block_size=256)
        dice = random.Random(9)
        told = [Story([dice.randrange(4000) for _ in range(n)], [7, 8, 9]) for n in (150, 40, 1, 77)]
        found.append(together(runner, told, dice))
        runner.close()
    for one, *others in zip(*found, strict=True):
        assert all(np.array_equal(one, other) for other in others)
