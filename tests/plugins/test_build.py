"""An engine is put together from a configuration: what "auto" becomes and why, and what is refused and why."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from isotoken.backends.reference.backend import CAPABILITIES, ReferenceBackend
from isotoken.conformance.models import LLAMA, QWEN3, write_checkpoint
from isotoken.core.capabilities import Capabilities, unsupported
from isotoken.core.interfaces import RunnerInfo
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.types import CheckpointError, DecodeParams, Request, RequestOutput, Unsupported
from isotoken.plugins import choice
from isotoken.plugins.build import Built, EngineConfig, build_engine
from isotoken.plugins.choice import AUTO_ORDER, choose_backend
from isotoken.plugins.hookspecs import API_VERSION, hookimpl
from isotoken.plugins.manager import PluginError, Plugins


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(LLAMA, tmp_path_factory.mktemp("models") / "llama"))  # stored in float32


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(QWEN3, tmp_path_factory.mktemp("models") / "qwen3"))  # stored in bfloat16


@pytest.fixture(scope="module")
def installed() -> Plugins:
    return Plugins.load()


class Stub:
    """A backend that can be chosen. It is never asked to load."""

    def __init__(self, **declared: Any) -> None:
        self.capabilities = Capabilities(
            **{
                "dtypes": frozenset({"float32"}),
                "devices": frozenset({"cpu"}),
                "missing_devices": {"tpu": "no such chip was seen"},
                **declared,
            }
        )

    def load(self, checkpoint: Any, config: Any) -> Any:
        raise AssertionError("a refused configuration must not be loaded")


class Given:
    """A plugin that claims backends by name; an exception in place of a backend is raised by its factory."""

    ISOTOKEN_API = API_VERSION

    def __init__(self, **backends: Stub | Exception) -> None:
        self._backends = backends

    @hookimpl
    def register_backends(self, register: Any) -> None:
        for name, backend in self._backends.items():
            register(name, lambda backend=backend: self._make(backend))

    def _make(self, backend: Stub | Exception) -> Stub:
        if isinstance(backend, Exception):
            raise backend
        return backend


def only(**backends: Stub | Exception) -> Plugins:
    """Return a registry with these backends, the built-in schedulers and caches, and no built-in backend."""
    plugins = Plugins()
    from isotoken.plugins import builtin

    for name, plugin in (("builtin", builtin), ("given", Given(**backends))):
        plugins._add(name, "a test", "", lambda plugin=plugin: plugin)
    return plugins


def build(plugins: Plugins, model: str, **settings: Any) -> Built:
    published: list[RequestOutput] = []
    return build_engine(EngineConfig(model=model, **settings), plugins, published.extend)


def choose(plugins: Plugins, **settings: Any) -> tuple[str, list[str]]:
    reasons: list[str] = []
    name, _ = choose_backend(EngineConfig(model="unused", **settings), plugins, reasons)
    return name, reasons


CUDA = frozenset({"cpu", "cuda"})


def test_auto_takes_torch_where_there_is_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "gpu_may_be_here", lambda: True)
    name, reasons = choose(only(torch=Stub(devices=CUDA), native=Stub()))
    assert name == "torch"
    assert "CUDA" in reasons[0]


def test_auto_imports_no_engine_for_gpus_where_no_driver_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(choice, "GPU_FILES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr(sys, "platform", "linux")
    made: list[str] = []
    plugins = only(torch=Stub(), native=Stub())
    monkeypatch.setattr(choice, "_construct", lambda name, _: made.append(name) or Stub())
    assert choose(plugins)[0] == "native"
    assert made == ["native"]
    (tmp_path / "nvidiactl").touch()
    assert choose(plugins)[0] == "native"
    assert made == ["native", "torch", "native"]


def test_auto_takes_the_first_installed_on_the_cpu() -> None:
    assert AUTO_ORDER["cpu"] == ("native", "onnxruntime", "torch")
    assert choose(only(torch=Stub(), onnxruntime=Stub()))[0] == "onnxruntime"
    assert choose(only(torch=Stub(), onnxruntime=Stub(), native=Stub()))[0] == "native"
    name, reasons = choose(only(torch=Stub()))
    assert name == "torch"
    assert "native, onnxruntime, torch" in reasons[0]


def test_auto_takes_an_engine_that_is_slow_here_only_where_no_other_is() -> None:
    slow = Stub(second_choice="this CPU runs only the plain kernels")
    name, reasons = choose(only(native=slow, torch=Stub()), device="cpu")
    assert name == "torch"
    assert "; not native: this CPU runs only the plain kernels" in reasons[0]
    name, reasons = choose(only(native=slow), device="cpu")
    assert name == "native"
    assert "no other engine for the CPU is installed, though native: this CPU runs only the plain" in reasons[0]


def test_auto_on_the_cpu_is_not_swayed_by_a_cuda_device() -> None:
    assert choose(only(torch=Stub(devices=CUDA), native=Stub()), device="cpu")[0] == "native"


def test_auto_passes_over_an_engine_that_cannot_be_imported() -> None:
    broken = Unsupported("backend onnxruntime: it cannot be imported")
    assert choose(only(onnxruntime=broken, torch=Stub()))[0] == "torch"


def test_auto_says_what_is_missing_where_nothing_fits() -> None:
    broken = Unsupported("PyTorch cannot be imported")
    with pytest.raises(Unsupported, match=r"(?s)PyTorch cannot be imported.*pip install torch.*backend reference"):
        choose(only(torch=broken, reference=Stub()))


def test_auto_says_that_the_device_asked_for_is_not_here() -> None:
    with pytest.raises(Unsupported, match="torch: no cuda device that it could use is here"):
        choose(only(torch=Stub(devices=frozenset({"cpu"}))), device="cuda")


def test_auto_passes_on_what_a_device_lacks() -> None:
    with pytest.raises(Unsupported, match="torch: no tpu device that it could use is here: no such chip was seen"):
        choose(only(torch=Stub()), device="tpu")


def test_auto_asked_for_cuda_does_not_fall_back_to_the_cpu() -> None:
    with pytest.raises(Unsupported, match="device 'cuda'"):
        choose(only(torch=Stub()), device="cuda")


def test_a_named_backend_is_taken_without_a_reason() -> None:
    assert choose(only(slow=Stub(), torch=Stub()), backend="slow") == ("slow", [])


def test_an_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(PluginError, match="did you mean 'torch'"):
        choose(only(torch=Stub()), backend="troch")


def test_auto_dtype_is_the_checkpoints_own_where_the_backend_computes_in_it(installed: Plugins, llama: str) -> None:
    built = build(installed, llama, backend="reference")
    assert (built.backend, built.device, built.dtype) == ("reference", "cpu", "float32")
    assert any("the checkpoint's own" in reason for reason in built.reasons)
    built.engine.close()


def test_auto_dtype_is_float32_where_it_does_not(installed: Plugins, qwen3: str) -> None:
    built = build(installed, qwen3, backend="reference")
    assert built.dtype == "float32"
    assert any("does not compute in the checkpoint's bfloat16" in reason for reason in built.reasons)
    built.engine.close()


def test_auto_dtype_is_one_of_the_devices_own(qwen3: str) -> None:
    """A backend may compute in the checkpoint's dtype on one device and not on another."""

    class Backend(ReferenceBackend):
        capabilities = replace(
            CAPABILITIES,
            dtypes=frozenset({"float32", "bfloat16"}),
            devices=frozenset({"cpu", "cuda"}),
            device_dtypes={"cpu": frozenset({"float32"})},
        )

    plugins = Plugins.load([("given", Given(other=Backend()))])
    built = build(plugins, qwen3, backend="other", device="cpu")
    assert built.dtype == "float32"
    built.engine.close()
    with pytest.raises(Unsupported, match="other does not compute in 'bfloat16'; it does in: float32"):
        build(plugins, qwen3, backend="other", device="cpu", dtype="bfloat16")


def test_every_open_choice_has_a_reason_and_pinned_ones_have_none(installed: Plugins, llama: str) -> None:
    built = build(installed, llama, backend="reference", device="cpu", dtype="float64")
    assert built.reasons == ()
    assert built.dtype == "float64"
    built.engine.close()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"device": "cuda"}, "cannot run on device 'cuda' here; it can on: cpu"),
        ({"device": "tpu:1"}, r"cannot run on device 'tpu:1' here; it can on: cpu \(no such chip was seen\)"),
        ({"dtype": "float8"}, "does not compute in 'float8'; it does in: float32"),
        ({"quantization": "int4"}, "does not offer quantization='int4'; it offers: none"),
        ({"kv_cache_dtype": "int8"}, "does not offer kv_cache_dtype='int8'; it offers: auto"),
        ({"tensor_parallel_size": 2}, "at most 1 device.*tensor_parallel_size=2"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size=0"),
    ],
)
def test_what_the_backend_does_not_declare_is_refused_before_it_loads(
    llama: str, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(Unsupported, match=f"backend plain .*{expected}"):
        build(only(plain=Stub()), llama, backend="plain", **settings)


@pytest.mark.parametrize("settings", [{"drafter": "ngram"}, {"draft_model": "somewhere"}])
def test_speculation_is_refused_with_the_declared_reason(llama: str, settings: dict[str, Any]) -> None:
    plain = Stub(speculative=unsupported("one logits row is all it has"))
    with pytest.raises(Unsupported, match="speculative decoding: one logits row is all it has"):
        build(only(plain=plain), llama, backend="plain", **settings)


def test_what_is_offered_is_named_in_the_refusal(llama: str) -> None:
    plain = Stub(quantizations=frozenset({"int8", "fp8"}))
    with pytest.raises(Unsupported, match="it offers: fp8, int8"):
        build(only(plain=plain), llama, backend="plain", quantization="int4")


@pytest.mark.parametrize("kind", ["scheduler", "kv_cache", "sampler", "drafter"])
def test_an_unknown_part_is_refused_by_name(installed: Plugins, llama: str, kind: str) -> None:
    with pytest.raises(PluginError, match=f"unknown {kind.replace('_', ' ')} 'nonesuch'"):
        build(installed, llama, backend="reference", **{kind: "nonesuch"})


def test_a_draft_model_with_another_vocabulary_is_refused(installed: Plugins, llama: str, qwen3: str) -> None:
    with pytest.raises(ValueError, match=r"vocabulary of 128, the model one of 131: .* same tokenizer"):
        build(installed, llama, backend="reference", draft_model=qwen3)


def test_the_model_drafter_without_a_draft_model_is_refused(installed: Plugins, llama: str) -> None:
    with pytest.raises(ValueError, match="draft"):
        build(installed, llama, backend="reference", drafter="model")


def test_a_folder_without_a_model_is_refused(installed: Plugins, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        build(installed, str(tmp_path), backend="reference")


def test_the_contiguous_cache_gets_rows_of_the_whole_context(installed: Plugins, llama: str) -> None:
    built = build(installed, llama, backend="reference", kv_cache="contiguous", max_model_len=48, max_num_seqs=3)
    info = built.engine.info
    assert (info.block_size, info.max_model_len) == (48, 48)
    assert info.num_blocks >= 3
    built.engine.close()


@pytest.mark.parametrize(("whole_rows", "declared"), [(True, "block_copies"), (False, "prefix_caching")])
def test_prefix_caching_needs_what_the_cache_makes_of_it(llama: str, whole_rows: bool, declared: str) -> None:
    """A third party's cache says by `whole_rows` how it serves a prefix; the backend says what it cannot do."""

    class Backend(ReferenceBackend):
        capabilities = replace(CAPABILITIES, **{declared: unsupported("not here")})

    class OwnCache:
        ISOTOKEN_API = API_VERSION

        @hookimpl
        def register_kv_caches(self, register: Any) -> None:
            register("own", self)

        def __call__(self, info: RunnerInfo, config: KVCacheConfig) -> PagedKVCache:
            assert config.prefix_caching is False
            return PagedKVCache(info, config)

    cache = OwnCache()
    cache.whole_rows = whole_rows  # type: ignore[attr-defined]
    plugins = Plugins.load([("given", Given(other=Backend())), ("own", cache)])
    built = build(plugins, llama, backend="other", kv_cache="own", max_model_len=48, max_num_seqs=2)
    assert any("backend other declares it absent: not here" in reason for reason in built.reasons)
    built.engine.close()


def test_prompts_are_not_scored_by_a_backend_that_declares_that_it_cannot(llama: str) -> None:
    class Backend(ReferenceBackend):
        capabilities = replace(CAPABILITIES, prompt_logprobs=unsupported("it gives the last row only"))

    engine = build(Plugins.load([("given", Given(other=Backend()))]), llama, backend="other", max_model_len=48).engine

    def add(**options: int) -> None:
        params = DecodeParams(**options)  # type: ignore[arg-type]
        engine.add(Request(id="r", token_ids=[1, 2, 3], num_prompt_tokens=3, params=params))

    with pytest.raises(ValueError, match="does not score prompts: it gives the last row only"):
        add(num_prompt_logprobs=0)
    add(num_logprobs=0)
    engine.close()


def test_the_checkpoint_is_shown_before_its_weights_are_read(installed: Plugins, llama: str) -> None:
    events: list[str] = []
    built = build_engine(
        EngineConfig(model=llama, backend="reference"),
        installed,
        lambda outputs: None,
        on_open=lambda checkpoint: events.append("open"),
        on_read=lambda name, num_bytes: events.append("read"),
    )
    assert events[0] == "open"
    assert events.count("read") > 1
    built.engine.close()


@pytest.mark.parametrize("scheduler", ["continuous", "adaptive", "static", "naive"])
@pytest.mark.parametrize("kv_cache", ["paged", "contiguous"])
@pytest.mark.parametrize("drafter", ["none", "ngram", "model"])
def test_every_combination_of_built_in_parts_gives_the_same_tokens(
    installed: Plugins, llama: str, scheduler: str, kv_cache: str, drafter: str
) -> None:
    settings = {"scheduler": scheduler, "kv_cache": kv_cache, "drafter": drafter}
    if drafter == "model":
        settings["draft_model"] = llama
    assert run(installed, llama, **settings) == run(installed, llama)


def run(plugins: Plugins, model: str, **settings: Any) -> dict[str, list[int]]:
    """Generate from three prompts, two greedy and one drawn, and return the tokens."""
    tokens: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    def publish(outputs: list[RequestOutput]) -> None:
        for output in outputs:
            tokens[output.request_id] += output.token_ids

    config = EngineConfig(model=model, backend="reference", max_model_len=64, max_num_seqs=4, **settings)
    engine = build_engine(config, plugins, publish).engine
    for index, name in enumerate(tokens):
        prompt = [3 + (7 * index + i) % 100 for i in range(5 + 9 * index)]
        params = DecodeParams(max_tokens=12, temperature=float(name == "c"), seed=5, ignore_eos=True)
        engine.add(Request(id=name, token_ids=prompt, num_prompt_tokens=len(prompt), params=params))
    engine.run()
    engine.close()
    assert all(len(output) == 12 for output in tokens.values())
    return tokens


def test_no_more_requests_run_than_get_a_token_in_each_step(installed: Plugins, llama: str) -> None:
    """Beyond the budget the newest would hold their rows and blocks, and get nothing while others run."""
    config = EngineConfig(model=llama, backend="reference", max_model_len=64, max_num_seqs=8, max_num_batched_tokens=3)
    outputs: list[RequestOutput] = []
    built = build_engine(config, installed, outputs.extend)
    try:
        assert built.engine.info.max_num_seqs == 3
        assert "max_num_seqs 3: no more get a token in each step of max_num_batched_tokens=3" in built.reasons
        for i in range(6):
            params = DecodeParams(max_tokens=5, ignore_eos=True)
            built.engine.add(Request(id=str(i), token_ids=[7, 8 + i], num_prompt_tokens=2, params=params))
        built.engine.run()
        gaps = {str(i): [n for n, output in enumerate(outputs) if output.request_id == str(i)] for i in range(6)}
        assert all(len(steps) == 5 and max(b - a for a, b in pairwise(steps)) <= 3 for steps in gaps.values()), gaps
    finally:
        built.engine.close()


def test_a_budget_that_is_enough_is_no_reason(installed: Plugins, llama: str) -> None:
    config = EngineConfig(model=llama, backend="reference", max_model_len=64, max_num_seqs=8, max_num_batched_tokens=8)
    built = build_engine(config, installed, lambda _: None)
    built.engine.close()
    assert built.engine.info.max_num_seqs == 8
    assert not any("max_num_seqs" in reason for reason in built.reasons)
