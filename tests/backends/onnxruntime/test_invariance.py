"""Logits are the same bits in any company, row, chunks and number of threads, in float32 and with quantised weights."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from isotoken.backends.onnxruntime.backend import OnnxRuntimeBackend
from isotoken.core.checkpoint import Checkpoint

from .helpers import alone, load, stories, together

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
