"""Logits against the oracle, every architecture: LOG in SPEC.md."""

from __future__ import annotations

import random

import pytest
from isotoken.conformance.lab import MAX_MODEL_LEN, Lab
from isotoken.conformance.models import MODELS
from isotoken.conformance.rig import Rig, Strand
from isotoken.conformance.spec import requires, spec

models = pytest.mark.parametrize("model", list(MODELS))


def text(model: str, length: int, seed: int = 0) -> list[int]:
    """Any tokens."""
    dice = random.Random(f"{model}-{length}-{seed}")
    return [dice.randrange(MODELS[model].vocab_size) for _ in range(length)]


def feed_all(rig: Rig, strand: Strand, chunk: int) -> None:
    """Compute a strand in chunks and check nothing but that it runs."""
    while strand.computed < len(strand.tokens):
        rig.step([(strand, min(chunk, len(strand.tokens) - strand.computed), 1)])


@models
@spec("LOG-1")
def test_last_position_around_block_boundaries(lab: Lab, model: str) -> None:
    size = lab.runner(model).info.block_size
    for length in sorted({1, 2, 3, size - 1, size, size + 1, 2 * size, 2 * size + 1, 60} - {0}):
        if length < MAX_MODEL_LEN:
            rig = lab.rig(model)
            tokens = text(model, length)
            lab.check_logits(rig.step([(rig.strand(tokens), length, 1)])[0], tokens, [length - 1], model)


@models
@spec("LOG-2")
@requires("prompt_logprobs")
def test_every_position_of_a_prompt(lab: Lab, model: str) -> None:
    rig, tokens = lab.rig(model), text(model, 90)
    rows = min(90, rig.runner.info.max_num_logits)
    for start in range(0, 90, rows):
        rig = lab.rig(model)
        count = min(rows, 90 - start)
        strand = rig.strand(tokens[: start + count])
        got = rig.step([(strand, start + count, count)])[0]
        lab.check_logits(got, tokens[: start + count], range(start, start + count), model)


@models
@spec("LOG-3")
@requires("chunked_prefill")
@pytest.mark.parametrize("sizes", [[1, 40], [16, 16, 9], [15, 2, 24], [7] * 5 + [6], [33, 8]], ids=str)
def test_chunks_of_any_sizes(lab: Lab, model: str, sizes: list[int]) -> None:
    rig, tokens = lab.rig(model), text(model, sum(sizes))
    got = rig.feed(rig.strand(tokens), sizes, all_rows=False)
    ends = [sum(sizes[: i + 1]) - 1 for i in range(len(sizes))]
    lab.check_logits(got, tokens, ends, model)


@models
@spec("LOG-4")
def test_one_by_one(lab: Lab, model: str) -> None:
    rig, tokens = lab.rig(model), text(model, 60)
    strand = rig.strand(tokens)
    rig.step([(strand, 20, 1)])
    got = rig.feed(strand, [1] * 40, all_rows=False)
    lab.check_logits(got, tokens, range(20, 60), model)


@models
@spec("LOG-4")
def test_up_to_the_last_position(lab: Lab, model: str) -> None:
    rig = lab.rig(model)
    length = rig.runner.info.max_model_len
    tokens = text(model, length)
    strand = rig.strand(tokens[: length - 3])
    strand.blocks = rig.strand(tokens).blocks
    feed_all(rig, strand, rig.runner.info.max_num_batched_tokens)
    strand.tokens = tokens
    got = rig.feed(strand, [1, 1, 1], all_rows=False)
    lab.check_logits(got, tokens, range(length - 3, length), model)


@models
@spec("LOG-5")
@requires("chunked_prefill")
def test_a_ragged_batch(lab: Lab, model: str) -> None:
    rig = lab.rig(model)
    plans = [(40, 1), (0, 33), (17, 1), (100, 9), (0, 1), (3, 20), (63, 1), (31, 2)]
    rows = rig.runner.info.max_num_seqs
    strands = [rig.strand(text(model, a + b, i), row_id=i) for i, (a, b) in enumerate(plans[:rows])]
    for strand, (context, _) in zip(strands, plans, strict=False):
        if context:
            rig.step([(strand, context, 1)])
    work = [(s, count, 1) for s, (_, count) in zip(strands, plans, strict=False)]
    for strand, got in zip(strands, rig.step(work), strict=True):
        lab.check_logits(got, strand.tokens, [len(strand.tokens) - 1], model)
