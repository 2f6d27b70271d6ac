"""What can be known of CUDA without a GPU: torch's memory, recordings, settings, and what is said to lack."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import onnxruntime
import pytest
from isotoken.backends.onnxruntime import sizes
from isotoken.backends.onnxruntime.backend import (
    CUDA_PROVIDER,
    OnnxRuntimeBackend,
    attention_form,
    make_form,
    make_graph,
    make_runner,
    no_cuda,
)
from isotoken.backends.onnxruntime.bindings import Window, WindowBinding
from isotoken.backends.onnxruntime.options import Options
from isotoken.backends.onnxruntime.runner import OnnxRuntimeRunner
from isotoken.backends.onnxruntime.session import open_session
from isotoken.conformance.rig import Rig
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
from isotoken.core.types import Unsupported

from .helpers import MAX_MODEL_LEN, SETTINGS, alone, load, stories, together

torch = pytest.importorskip("torch")

from isotoken.backends.onnxruntime import cuda, cuda_load, recording  # noqa: E402  (they need torch)

Models = Callable[[str], Checkpoint]


def load_in_torch(
    source: Checkpoint, *, recorded: bool, attention: str, kv_dtype: str = "float32"
) -> OnnxRuntimeRunner:
    """A runner as cuda_load makes it, on the CPU: the same parts, another device."""
    config = RunnerConfig(**SETTINGS)
    options = Options.read({"attention": attention})
    shape = sizes.row_shape(source, MAX_MODEL_LEN, kv_dtype)
    info = sizes.plan(source, config, dtype="float32", device="cpu", shape=shape, free=1 << 30)
    graph = make_graph(source, config, options, device="cpu", dtype="float32", kv_dtype=kv_dtype)
    session = open_session(source, graph, options, num_threads=1)
    rows = cuda.TorchRows(shape, info.num_blocks, kv_dtype, torch.device("cpu"))
    form, recorder = make_form(graph, MAX_MODEL_LEN), recording.Recorder()

    def bind(first: int, count: int) -> Window:
        if recorded:
            return recording.RecordedWindow(
                session, rows, form, first, count, max_model_len=MAX_MODEL_LEN, recorder=recorder
            )
        return WindowBinding(session, rows, form, first, count)

    return make_runner(source, graph, info, rows, bind)


@pytest.mark.parametrize(("attention", "recorded"), [("auto", False), ("auto", True), ("standard", False)])
def test_rows_in_torchs_memory_give_the_same_bits(models: Models, attention: str, recorded: bool) -> None:
    quiet = load(models("gemma2"), options={"attention": attention})
    busy = load_in_torch(models("gemma2"), recorded=recorded, attention=attention)
    for seed in range(4):
        print(f"seed {seed}")
        dice = random.Random(seed)
        told = stories(dice, 8, quiet.info.vocab_size)
        due = [alone(quiet, story) for story in told]
        for found, rows in zip(together(busy, told, dice), due, strict=True):
            assert np.array_equal(found, rows)
    assert float(busy._rows.array.abs().max()) > 0, "keys and values were written to the tensor itself"
    quiet.close()
    busy.close()
    busy.close()


@pytest.mark.parametrize("recorded", [False, True])
def test_steady_steps_in_torchs_memory(models: Models, recorded: bool) -> None:
    found = []
    for runner in (load(models("llama")), load_in_torch(models("llama"), recorded=recorded, attention="auto")):
        rig = Rig(runner)
        strands = [rig.strand(range(3 * i, 3 * i + 40), row_id=i) for i in range(3)]
        rig.step([(strand, 20, 1) for strand in strands])
        rows = [rig.step([(strand, 1, 1) for strand in reversed(strands)]) for _ in range(6)]
        rows += [rig.step([(strand, 1, 1) for strand in strands[1:]]) for _ in range(3)]
        found.append(np.concatenate([row for step in rows for row in step]))
        runner.close()
    assert np.array_equal(*found)


def test_each_runner_works_on_a_stream_of_its_own(models: Models) -> None:
    """Two runners that take turns, as a model and its draft model do; what is current outside is no matter."""
    current = ["the default one"]

    def stream(name: str) -> Callable[[], AbstractContextManager[None]]:
        @contextmanager
        def use() -> Iterator[None]:
            current.append(name)
            yield
            current.pop()

        return use

    runners = {name: load_in_torch(models("llama"), recorded=False, attention="auto") for name in ("model", "draft")}
    used: list[tuple[str, str]] = []
    for name, runner in runners.items():
        forward = runner.forward
        runner.forward = lambda batch, name=name, forward=forward: used.append((name, current[-1])) or forward(batch)  # type: ignore[assignment]
    placed = [cuda_load.OnStream(runner, stream(name)) for name, runner in runners.items()]
    rigs = [Rig(runner) for runner in placed]
    strands = [rig.strand([5, 6, 7, 8, 9]) for rig in rigs]
    found = [rig.step([(strand, n, 1)])[0] for n in (3, 1, 1) for rig, strand in zip(rigs, strands, strict=True)]
    assert used == [("model", "model"), ("draft", "draft")] * 3
    assert all(np.array_equal(one, other) for one, other in zip(found[::2], found[1::2], strict=True))
    for runner in placed:
        runner.close()
    assert current == ["the default one"]


def test_half_precision_rows_in_torchs_memory(models: Models) -> None:
    quiet = load(models("llama"), kv_cache_dtype="float16")
    busy = load_in_torch(models("llama"), recorded=False, attention="auto", kv_dtype="float16")
    story = stories(random.Random(5), 1, quiet.info.vocab_size)[0]
    assert np.array_equal(alone(quiet, story), alone(busy, story))


def test_rows_on_a_device_are_not_bounded_by_the_hosts_memory(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    class Planned(Exception):
        pass

    def plan(*_: object, free: int, **__: object) -> None:
        raise Planned(free)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 50, 1 << 50))  # more than any host has
    monkeypatch.setattr(sizes, "plan", plan)
    with pytest.raises(Planned) as planned:
        cuda_load._load(models("llama"), RunnerConfig(**SETTINGS), Options.read({}), torch.device("cuda", 0), 0)
    assert planned.value.args == (1 << 50,)


def test_recordings_are_numbered_once_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_RECORDINGS", 2)
    recorder = recording.Recorder()
    ids = [recorder.next().get_run_config_entry("gpu_graph_id") for _ in range(4)]
    assert ids == ["1", "2", "-1", "-1"]


@pytest.mark.parametrize(
    ("length", "bucket"), [(1, 256), (256, 256), (257, 512), (1000, 1024), (1025, 1500), (1500, 1500)]
)
def test_buckets_hold_their_lengths(length: int, bucket: int) -> None:
    assert cuda.length_bucket(length, 1500) == bucket


def test_the_provider_is_told_to_be_exact_and_to_use_torchs_stream() -> None:
    options = cuda.provider_options(1, 4096, graphs=True)
    assert (options["device_id"], options["user_compute_stream"]) == ("1", "4096")
    assert (options["use_tf32"], options["enable_cuda_graph"]) == ("0", "1")
    assert cuda.provider_options(0, 1, graphs=False)["enable_cuda_graph"] == "0"
    assert all(isinstance(value, str) for value in options.values())


def test_the_package_for_the_cpu_is_named_as_what_is_wrong(models: Models) -> None:
    if CUDA_PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert OnnxRuntimeBackend().capabilities.devices == {"cpu"}
    with pytest.raises(
        Unsupported, match=r"'cuda' cannot be used here: .*package for the CPU.*isotoken\[onnxruntime-gpu\]"
    ):
        load(models("llama"), device="cuda")


def test_each_missing_piece_is_named(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never the CPU instead: with the provider but without the rest, CUDA is refused with what lacks."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    if not torch.cuda.is_available():
        expected = "built without CUDA" if torch.version.cuda is None else "no NVIDIA GPU"
        assert expected in str(no_cuda())
        with pytest.raises(Unsupported, match=expected):
            load(models("llama"), device="cuda:0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no NVIDIA GPU" in str(no_cuda())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert no_cuda() is None
    can = OnnxRuntimeBackend().capabilities
    assert can.devices == {"cpu", "cuda"} and can.dtypes >= {"float16", "bfloat16"}
    assert not can.invariant_to, "proven on the CPU only"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Unsupported, match=r"'cuda:3' is not here: 1 GPU"):
        cuda.find_device("cuda:3")


def test_torch_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER])
    monkeypatch.setitem(sys.modules, "isotoken.backends.onnxruntime.cuda", None)
    assert "torch cannot be imported" in str(no_cuda())


@pytest.mark.parametrize("device", ["abacus", "cpu:1", "cuda:x"])
def test_strange_devices_are_refused(models: Models, device: str) -> None:
    with pytest.raises(Unsupported, match=f"device '{device}'"):
        load(models("llama"), device=device)


def test_a_session_that_fell_back_to_the_cpu_is_refused(models: Models) -> None:
    source = models("llama")
    options = Options.read({})
    graph = make_graph(source, RunnerConfig(**SETTINGS), options, device="cpu", dtype="float32", kv_dtype="float32")
    with pytest.raises(Unsupported, match="the session runs on CPUExecutionProvider"):
        cuda.require_provider(open_session(source, graph, options, num_threads=1))


def test_operators_that_were_put_on_the_cpu_are_named(models: Models) -> None:
    """Where a kernel is missing ONNX Runtime takes the CPU's and copies weights and cache to and fro."""
    source = models("gemma2")
    graph = make_graph(
        source, RunnerConfig(**SETTINGS), Options.read({}), device="cpu", dtype="float32", kv_dtype="float32"
    )
    session = open_session(source, graph, Options.read({}), num_threads=1, config=cuda.RECORDED)
    with pytest.raises(
        Unsupported, match=r"would run .*Gemm, GroupQueryAttention, .* on the CPU.*choose another dtype"
    ):
        cuda.require_kernels(session)
    cuda.require_kernels(session, "CPUExecutionProvider")
    found = {node.op_type for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()}
    assert found - cuda.HEAVY <= {"Add", "Cast", "Concat", "Div", "Gather", "Mul", "Reshape", "Shape", "Tanh"}


def test_attention_takes_the_form_that_has_a_kernel() -> None:
    def form(dtype: str, attention: str = "auto", device: str = "cuda") -> str:
        return attention_form(Options.read({"attention": attention}), device, dtype)

    assert [form("float32"), form("float16"), form("bfloat16")] == ["standard", "gqa", "gqa"]
    assert form("float32", device="cpu") == "gqa"
    assert form("float16", "standard") == "standard"
    assert form("bfloat16", "paged") == "paged"
    for dtype, device in (("float32", "cuda"), ("float16", "cpu")):
        with pytest.raises(Unsupported, match=f"float16 and bfloat16 only, not on {device} in {dtype}"):
            form(dtype, "paged", device)
    assert cuda_load.resolve_dtype("auto", "bfloat16") == "bfloat16"
    assert cuda_load.resolve_dtype("float16", "bfloat16") == "float16"
