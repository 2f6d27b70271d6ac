"""What the bits of a logit must not depend on, aspect by aspect: INV-14 and INV-16 to INV-20 in SPEC.md."""

from __future__ import annotations

import pytest
from isotoken.conformance.cases import goldens
from isotoken.conformance.lab import Lab
from isotoken.conformance.rig import Array, Rig, Strand
from isotoken.conformance.spec import requires, spec

models = pytest.mark.parametrize("model", ["llama", "gemma2", "moe"])


def tokens_of(model: str, count: int) -> list[int]:
    """The beginning of the model's longest golden prompt."""
    return list(next(c for c in goldens(model) if c.name == "greedy-long").prompt)[:count]


def others(rig: Rig, model: str, lens: tuple[int, ...]) -> list[Strand]:
    """Requests that keep another company, as many as the runner has room for, in rows from 1 on."""
    text = tokens_of(model, 60)[::-1] * 2
    return [rig.strand(text[i : i + n], row_id=1 + i) for i, n in enumerate(lens[: rig.runner.info.max_num_seqs - 1])]


@spec("INV-14")
@requires("chunked_prefill")
@models
def test_logits_however_computed(lab: Lab, model: str) -> None:
    tokens = tokens_of(model, 50)
    rig = lab.rig(model)
    ends = [19, 20, 21, 22, 49]
    alone = rig.feed(rig.strand(tokens), [20, 1, 1, 1, 27], all_rows=False)
    lab.check_logits(alone, tokens, ends, model)
    for sizes in ([20, 3, 27], [7, 13, 30], [50]):
        got = rig.feed(rig.strand(tokens), sizes, all_rows=False)
        for row, end in zip(got, [sum(sizes[: i + 1]) - 1 for i in range(len(sizes))], strict=True):
            if end in ends:
                mine, what = alone[ends.index(end)], f"{model}: position {end} alone and in chunks of {sizes}"
                lab.same_logits(mine, row, what, "chunking", "recomputation")
    company = others(rig, model, (5, 40, 17))
    strand = rig.strand(tokens)
    for turn, (count, row) in enumerate(zip((20, 1, 1, 1, 27), alone, strict=True)):
        work = [(s, 1 if turn else len(s.tokens) - 3, 1) for s in company if s.computed < len(s.tokens)]
        got = rig.step([*work, (strand, count, 1)])[-1][0]
        what = f"{model}: position {strand.computed - 1} alone and in a batch"
        lab.same_logits(row, got, what, "company", "placement")


@spec("INV-14")
@requires("speculative")
@models
def test_logits_of_a_verification(lab: Lab, model: str) -> None:
    tokens = tokens_of(model, 30)
    rig = lab.rig(model)
    one = rig.feed(rig.strand(tokens), [25, 1, 1, 1, 1, 1], all_rows=False)[1:]
    verified = rig.strand(tokens)
    rig.step([(verified, 25, 1)])
    many = rig.step([(verified, 5, 5)])[0]
    lab.check_logits(many, tokens, range(25, 30), model)
    lab.same_logits(one, many, f"{model}: five decodes and one verification", "recomputation")


@spec("INV-16")
@requires("chunked_prefill")
def test_any_number_of_threads(lab: Lab) -> None:
    tokens = tokens_of("llama", 99)
    found = []
    for threads in (1, 2):
        rig = lab.rig(num_threads=threads)
        company = others(rig, "llama", (40, 17, 33))
        strand = rig.strand(tokens)
        rows = rig.feed(strand, [60, 1, 1, 30], all_rows=False)
        work = [(s, len(s.tokens) - 1, 1) for s in company]
        rows_too = rig.step([(strand, 1, 1), *work]) + rig.step([(strand, 1, 1), *((s, 1, 1) for s in company)])
        found.append([*rows, *(row[0] for row in rows_too)])
    for one, two in zip(*found, strict=True):
        lab.same_logits(one, two, "one thread and two", "threads")


@spec("INV-17")
@models
def test_company(lab: Lab, model: str) -> None:
    """The request comes first in every batch; only the others change."""
    tokens = tokens_of(model, 50)
    rig = lab.rig(model)
    alone = rig.feed(rig.strand(tokens), [30, 1, 1, 1], all_rows=False)
    lab.check_logits(alone, tokens, [29, 30, 31, 32], model)
    for lens in ((4,), (9, 40), (5, 17, 28, 4, 11), (12,) * 7):
        rig = lab.rig(model)  # all blocks are free again
        company = others(rig, model, lens)
        strand = rig.strand(tokens)
        got = []
        for turn, count in enumerate((30, 1, 1, 1)):
            work = [(s, 1 if turn else len(s.tokens) - 3, 1) for s in company]
            got.append(rig.step([(strand, count, 1), *work])[0][0])
        for mine, row in zip(alone, got, strict=True):
            lab.same_logits(mine, row, f"{model}: alone and with {len(company)} others", "company")


@spec("INV-18")
@models
def test_placement(lab: Lab, model: str) -> None:
    """The same requests in the same steps, in other orders, rows and blocks."""
    lens = [40, 9, 23, 40][: lab.rig(model).runner.info.max_num_seqs]
    found: dict[int, Array] = {}
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        rig = lab.rig(model)
        rig.free = rig.free if order[0] == 0 else rig.free[::-1]
        places = [i for i in order if i < len(lens)]
        strands = {i: rig.strand(tokens_of(model, 60)[i : i + lens[i]], row_id=row) for row, i in enumerate(places)}
        for turn in range(3):
            counts = {i: 1 if turn else lens[i] - 2 for i in places}
            got = rig.step([(strands[i], counts[i], 1) for i in places])
            for i, rows in zip(places, got, strict=True):
                first = found.setdefault(10 * turn + i, rows[0])
                lab.same_logits(first, rows[0], f"{model}: request {i} in the order {places}", "placement")


@spec("INV-19")
@requires("chunked_prefill")
@models
def test_chunking(lab: Lab, model: str) -> None:
    """Chunks of two tokens or more: one of a single token is computed as a decode is, see INV-20."""
    tokens = tokens_of(model, 50)
    found: dict[int, Array] = {}
    for sizes in ([50], [20, 30], [2, 48], [48, 2], [7, 13, 30], [16, 16, 18], [5] * 10, [2] * 25):
        rig = lab.rig(model)
        got = rig.feed(rig.strand(tokens), sizes, all_rows=False)
        for index, row in enumerate(got):
            end = sum(sizes[: index + 1])
            first = found.setdefault(end, row)
            lab.same_logits(first, row, f"{model}: position {end - 1} in chunks of {sizes}", "chunking")


@spec("INV-20")
@requires("chunked_prefill")
@models
def test_recomputation(lab: Lab, model: str) -> None:
    """What a preempted request meets: tokens that were decoded one by one are computed again with its prompt."""
    tokens = tokens_of(model, 50)
    rig = lab.rig(model)
    decoded = rig.feed(rig.strand(tokens), [20, *[1] * 30], all_rows=False)
    lab.check_logits(decoded, tokens, range(19, 50), model)
    for done in (21, 33, 49):
        again = rig.feed(rig.strand(tokens), [done, *[1] * (50 - done)], all_rows=False)
        what = f"{model}: decoded, and {done} tokens computed again at once"
        lab.same_logits(decoded[done - 20 :], again, what, "recomputation")
