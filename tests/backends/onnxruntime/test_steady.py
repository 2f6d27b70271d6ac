"""Steps that go on with the one before are told from those that only look so, and have the same bits as any."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from isotoken.backends.onnxruntime import runner as runner_module
from isotoken.backends.onnxruntime.steady import Steady
from isotoken.conformance.rig import Array, Rig, Strand
from isotoken.core.batch import Batch
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import ModelRunner

from .helpers import MAX_MODEL_LEN, load

Models = Callable[[str], Checkpoint]


class Counted(Steady):
    """Counts the steps that went on."""

    num = 0

    def run(self, batch: Batch, logits: Array) -> None:
        Counted.num += 1
        super().run(batch, logits)


class Never(Steady):
    """What the runner did before there were steady steps."""

    def goes_on(self, batch: Batch) -> bool:
        return False


def tell(runner: ModelRunner, seed: int) -> list[Array]:
    """Rows of logits of a story: requests come, decode together for some steps, pause, and leave."""
    dice = random.Random(seed)
    rig, found = Rig(runner), []
    free = list(range(runner.info.num_blocks))
    strands: list[Strand] = []
    for _ in range(12):
        while len(strands) < 5 and dice.random() < 0.6:
            tokens = [dice.randrange(runner.info.vocab_size) for _ in range(MAX_MODEL_LEN)]
            strand = Strand(tokens, [free.pop(dice.randrange(len(free)))], row_id=len(strands))
            copies = [(strands[-1].blocks[0], strand.blocks[0], 2)] if strands and dice.random() < 0.3 else []
            if copies:
                strand.tokens[:2] = strands[-1].tokens[:2]
                strand.computed = min(2, strands[-1].computed)
            strands.append(strand)
            found += rig.step([(strand, dice.randint(1, 12), 1)], copies=copies)
        chosen = dice.sample(strands, dice.randint(1, len(strands))) if strands else []
        for _ in range(dice.randint(1, 5)):
            if work := [(s, 1, 1) for s in chosen if s.computed < MAX_MODEL_LEN]:
                found += rig.step(work)
        if chosen and dice.random() < 0.4:
            free += chosen[0].blocks
            strands.remove(chosen[0])
    return found


@pytest.mark.parametrize("settings", [{}, {"quantization": "int4"}, {"options": {"attention": "standard"}}], ids=str)
def test_steady_steps_have_the_bits_of_any_others(
    models: Models, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for kind in (Counted, Never):
        monkeypatch.setattr(runner_module, "Steady", kind)
        runner = load(models("llama"), **settings)
        found.append([rows for seed in range(6) for rows in tell(runner, seed)])
        runner.close()
    assert Counted.num > 50, "most decodes go on"
    for mine, due in zip(*found, strict=True):
        assert np.array_equal(mine, due)


def test_what_only_looks_like_one_more_token_does_not_go_on(models: Models) -> None:
    runner = load(models("llama"))
    rig = Rig(runner)
    tokens = list(range(40))
    one, other = rig.strand(tokens), rig.strand(tokens, row_id=1)
    third = rig.strand(tokens, row_id=2)
    rig.step([(s, 8, 1) for s in (one, other, third)])
    rig.step([(one, 1, 1), (other, 1, 1)])
    steady = runner._steady  # type: ignore[attr-defined]
    assert steady is not None and steady.goes_on(rig.batch([(one, 1, 1), (other, 1, 1)]))
    strange = {
        "in another order": [(other, 1, 1), (one, 1, 1)],
        "one is missing": [(one, 1, 1)],
        "another one": [(one, 1, 1), (third, 1, 1)],
        "one more": [(one, 1, 1), (other, 1, 1), (third, 1, 1)],
        "two tokens": [(one, 2, 1), (other, 1, 1)],
        "without logits": [(one, 1, 0), (other, 1, 1)],
        "two of one and none of the other": [(one, 2, 2), (other, 0, 0)],
    }
    for name, work in strange.items():
        assert not steady.goes_on(rig.batch(work)), name
    assert not steady.goes_on(rig.batch([(one, 1, 1), (other, 1, 1)], copies=[(2, 2, 3)])), "a block was given away"
    one.blocks = [7]
    assert not steady.goes_on(rig.batch([(one, 1, 1), (other, 1, 1)])), "another block"
    runner.close()


def test_the_same_step_again_gives_the_same(models: Models) -> None:
    """The engine runs a step again when it looks for the request that failed."""
    runner = load(models("llama"))
    rig = Rig(runner)
    strand = rig.strand(range(60))
    rig.step([(strand, 10, 1)])
    for _ in range(4):
        batch = rig.batch([(strand, 1, 1)])
        first = np.array(runner.forward(batch))
        assert np.array_equal(runner.forward(batch), first)
        assert np.array_equal(rig.step([(strand, 1, 1)])[0], first)
    runner.close()
