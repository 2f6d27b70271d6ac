"""The form paged through its runner: numpy stands in for the operator and works on the very memory that is bound."""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from isotoken.backends.onnx_graph import GraphOptions, build_graph
from isotoken.backends.onnxruntime import sizes
from isotoken.conformance.rig import Rig
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
from onnx.reference import ReferenceEvaluator

from ..onnx_graph.test_paged import PagedAttention
from .helpers import MAX_MODEL_LEN, SETTINGS, load

torch = pytest.importorskip("torch")

from isotoken.backends.onnxruntime.paged import PagedRunner, TorchBlocks  # noqa: E402  (it needs torch)

Models = Callable[[str], Checkpoint]


class Binding:
    """What was bound, by name: the memory itself."""

    def __init__(self) -> None:
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}

    def bind_input(self, name: str, device: str, index: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        self.inputs[name] = view(device, dtype, shape, address)

    def bind_output(self, name: str, device: str, index: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        self.outputs[name] = view(device, dtype, shape, address)


def view(device: str, dtype: Any, shape: tuple[int, ...], address: int) -> np.ndarray:
    assert device == "cpu" and address
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


class Session:
    """Runs a graph with numpy's PagedAttention in place of the runtime's."""

    def __init__(self, path: Path) -> None:
        self._evaluator = ReferenceEvaluator(onnx.load(path), new_ops=[PagedAttention])

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, io: Binding, options: None) -> None:
        for name, cache in io.outputs.items():
            if name != "logits":
                past = io.inputs[name.replace("present", "past")]
                assert cache.ctypes.data == past.ctypes.data, "present and past are one memory"
        io.outputs["logits"][:] = self._evaluator.run(["logits"], io.inputs)[0]


@pytest.fixture
def runner(models: Models, tmp_path: Path) -> PagedRunner:
    source = models("llama")
    config = RunnerConfig(**(SETTINGS | {"block_size": 8, "num_blocks": 0}))
    rows = sizes.row_shape(source, MAX_MODEL_LEN, "float16")
    info = sizes.plan(source, config, dtype="float16", device="cuda:0", shape=rows, free=1 << 30)
    info, shape = sizes.in_blocks(info, rows, config)
    assert (info.block_size, info.num_blocks) == (8, 24 * MAX_MODEL_LEN // 8)
    graph = build_graph(source, GraphOptions(attention="paged", dtype="float16", max_model_len=MAX_MODEL_LEN))
    blocks = TorchBlocks(shape, info.num_blocks, "float16", torch.device("cpu"))
    return PagedRunner(Session(graph.save(tmp_path)), blocks, info, sampler=None)


def test_prompts_beside_decodes_over_scattered_blocks(runner: PagedRunner, models: Models) -> None:
    dice = random.Random(4)
    texts = [[dice.randrange(120) for _ in range(30)] for _ in range(3)]
    free = dice.sample(range(runner.info.num_blocks), runner.info.num_blocks)
    exact = load(models("llama"))
    due_rig, rig = Rig(exact), Rig(runner, free)
    due = [due_rig.strand(text, row_id=i) for i, text in enumerate(texts)]
    got = [rig.strand(text, row_id=i) for i, text in enumerate(texts)]
    for counts in ([20, 3, 0], [1, 17, 9], [1, 1, 12], [2, 1, 1]):
        work = [(i, n, min(n, 2)) for i, n in enumerate(counts) if n]
        expected = due_rig.step([(due[i], n, wanted) for i, n, wanted in work])
        for mine, theirs in zip(rig.step([(got[i], n, wanted) for i, n, wanted in work]), expected, strict=True):
            assert abs(mine - theirs).max() < 8e-3 * abs(theirs).max()
    exact.close()


def test_copies_no_logits_and_the_end(runner: PagedRunner) -> None:
    rig = Rig(runner)
    text = [(11 * i) % 120 for i in range(20)]
    source, target = rig.strand(text), rig.strand(text, row_id=1)
    assert rig.step([(source, 16, 0)])[0].shape == (0, runner.info.vocab_size)
    target.computed = 16
    copies = [(source.blocks[0], target.blocks[0], 8), (source.blocks[1], target.blocks[1], 8)]
    batch = rig.batch([(target, 4, 4)], copies=copies)
    assert np.array_equal(runner.forward(batch), rig.step([(source, 4, 4)])[0])
    runner.close()
    runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        runner.forward(batch)
