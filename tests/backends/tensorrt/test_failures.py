"""Every way in which TensorRT can fail ends in an exception that names what failed, why, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from isotoken.conformance.rig import Rig
from isotoken.core.types import EngineError, Unsupported

from .conftest import Bench


def error() -> type[Exception]:
    """TensorRTError, imported when the fake is there."""
    from isotoken.backends.tensorrt.errors import TensorRTError

    return TensorRTError


AT_LOAD = {
    "Builder.__init__": "make a builder",
    "OnnxParser.load_model_proto": "parse the graph",
    "OnnxParser.load_initializer": "take the weight",
    "OnnxParser.parse_model_proto": "parse the graph",
    "IBuilderConfig.set_timing_cache": "use the timing cache",
    "IBuilderConfig.add_optimization_profile": "use the profile decode",
    "Builder.build_serialized_network": "build the engine",
    "Runtime.__init__": "make a runtime",
    "Runtime.deserialize_cuda_engine": "load the engine",
}
AT_REFIT = {
    "OnnxParserRefitter.load_model_proto": "read the weights",
    "OnnxParserRefitter.load_initializer": "take the weight",
    "OnnxParserRefitter.refit_model_proto": "read the weights",
    "Refitter.get_missing_weights": "refit the engine",
    "Refitter.refit_cuda_engine": "refit the engine",
}
AT_RUN = {
    "ICudaEngine.create_execution_context": "make an execution context",
    "IExecutionContext.set_optimization_profile_async": "choose the profile",
    "IExecutionContext.set_input_shape": "set the shape of",
    "IExecutionContext.set_tensor_address": "set the address of",
    "IExecutionContext.infer_shapes": "not set: positions",
    "IExecutionContext.execute_async_v3": "run the engine",
}


@pytest.mark.parametrize(("call", "what"), AT_LOAD.items())
def test_a_failure_at_load_is_told(bench: Bench, world: Any, call: str, what: str) -> None:
    world.FAULTS[call] = "a reason of TensorRT's own"
    with pytest.raises(error(), match=f"^backend tensorrt: could not {what}.*a reason of TensorRT's own.*What to do"):
        bench.load()
    world.FAULTS.clear()
    bench.load()  # nothing was left behind that would be in the way


@pytest.mark.parametrize(("call", "what"), AT_REFIT.items())
def test_a_failure_to_refit_is_told(bench: Bench, world: Any, call: str, what: str) -> None:
    world.FAULTS[call] = "a reason of TensorRT's own"
    with pytest.raises(error(), match=f"could not {what}.*a reason of TensorRT's own"):
        bench.load(options={"refit": "on"})


@pytest.mark.parametrize(("call", "what"), AT_RUN.items())
@pytest.mark.parametrize("num_tokens", [1, 3, 20], ids=["decode", "verify", "prefill"])
def test_a_failure_to_run_is_told(bench: Bench, world: Any, call: str, what: str, num_tokens: int) -> None:
    runner = bench.load()
    rig = Rig(runner)
    world.FAULTS[call] = "a reason of TensorRT's own"
    with pytest.raises(error(), match=f"{what}.*a reason of TensorRT's own"):
        rig.step([(rig.strand(range(num_tokens)), num_tokens, 1)])
    world.FAULTS.clear()
    rig.step([(rig.strand(range(num_tokens)), num_tokens, 1)])


@pytest.mark.parametrize(
    "call",
    [
        "Builder.build_serialized_network",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_execution_context",
        "Refitter.refit_cuda_engine",
        "IExecutionContext.execute_async_v3",
    ],
)
def test_what_only_the_error_recorder_hears_is_told_too(bench: Bench, world: Any, call: str) -> None:
    world.FAULTS[call] = "recorder: a reason for the recorder"
    with pytest.raises(error(), match="a reason for the recorder"):
        rig = Rig(bench.load(options={"refit": "on"}))
        rig.step([(rig.strand(range(20)), 20, 1)])


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("CUDA initialization failure with error: 35", "check nvidia-smi"),
        ("Requested amount of GPU memory (1 bytes) could not be allocated: out of memory", "lower max_num_seqs"),
        ("Could not find any implementation for node {Attention}", "raise the option workspace_mib"),
        ("version tag does not match", "remove it from the engine cache"),
        ("Target GPU SM 61 is not supported by this TensorRT release", "does not support this GPU"),
        ("a riddle", "log level of isotoken.tensorrt"),
    ],
)
def test_advice_fits_the_reason(bench: Bench, world: Any, says: str, advice: str) -> None:
    world.FAULTS["Runtime.deserialize_cuda_engine"] = says
    with pytest.raises(error(), match=advice):
        bench.load()


def test_a_lost_gpu_ends_the_engine(bench: Bench, world: Any) -> None:
    rig = Rig(bench.load())
    world.FAULTS["IExecutionContext.execute_async_v3"] = "CUDA error: 700 (an illegal memory access was encountered)"
    with pytest.raises(EngineError, match="must be started again"):
        rig.step([(rig.strand(range(20)), 20, 1)])


def test_an_operator_that_is_missing_is_unsupported(bench: Bench, monkeypatch: pytest.MonkeyPatch, world: Any) -> None:
    from tensorrt import _parse

    monkeypatch.setattr(_parse, "OPERATORS", _parse.OPERATORS - {"RMSNormalization"})
    with pytest.raises(Unsupported, match=r"node .*\(RMSNormalization\): No importer registered.*newer TensorRT"):
        bench.load()


def test_an_old_version_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt
    from isotoken.backends.tensorrt.backend import TensorRTBackend

    monkeypatch.setattr(tensorrt, "__version__", "10.14.1.48")
    with pytest.raises(Unsupported, match=r"10\.14\.1\.48 is installed, 10\.15 or later is needed"):
        TensorRTBackend()
    monkeypatch.setattr(tensorrt, "__version__", "10.15.1.29")
    TensorRTBackend()


def test_a_cache_that_is_not_updated_in_place_is_refused(bench: Bench, world: Any) -> None:
    world.FAULTS["ICudaEngine.get_aliased_input_tensor"] = "no alias"
    with pytest.raises(error(), match=r"present_key\.0 is not written in place of past_key\.0 but of None"):
        bench.load()


def test_an_engine_of_another_model_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from isotoken.backends.tensorrt.store import Store

    bench.load("qwen3")
    foreign = bench.plans()[0].read_bytes()
    monkeypatch.setattr(Store, "load", lambda self, key: foreign)
    bench.load("qwen3")
    with pytest.raises(error(), match="its tensors differ from the graph's"):
        bench.load("gemma2")


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), RuntimeError("the terminal is gone")], ids=repr)
def test_progress_can_stop_a_build(bench: Bench, world: Any, raised: BaseException) -> None:
    told: list[str] = []

    def stop(phase: str, share: float) -> None:
        told.append(phase)
        if share > 0.4:
            raise raised

    with pytest.raises(type(raised)):
        bench.backend.build(bench.checkpoint(), bench.config(), stop)
    assert not bench.plans()
    assert world.CALLS.count("IProgressMonitor.step_complete") == 4  # of ten


def test_errors_are_told_once(bench: Bench, world: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Both the recorder and the logger hear an error; it is quoted once, and raised rather than logged."""
    world.FAULTS["Runtime.deserialize_cuda_engine"] = "one reason"
    with caplog.at_level(logging.INFO, "isotoken.tensorrt"), pytest.raises(error()) as caught:
        bench.load()
    assert str(caught.value).count("one reason") == 1
    assert "one reason" not in caplog.text
    world.FAULTS["Runtime.deserialize_cuda_engine"] = "another reason"
    with pytest.raises(error()) as caught:
        bench.load()
    assert "one reason" not in str(caught.value)


def test_the_recorder_is_a_list_that_is_cleared_once_it_was_told() -> None:
    import tensorrt as trt
    from isotoken.backends.tensorrt.journal import Journal

    journal = Journal()
    journal.recorder.report_error(trt.ErrorCodeTRT.INVALID_ARGUMENT, "one")
    assert (journal.recorder.num_errors(), journal.recorder.has_overflowed()) == (1, False)
    assert journal.recorder.get_error_code(0) == trt.ErrorCodeTRT.INVALID_ARGUMENT
    assert journal.recorder.get_error_desc(0) == "one"
    assert "one" in str(journal.failure("do something"))
    assert journal.recorder.num_errors() == 0
    for number in range(200):
        journal.recorder.report_error(trt.ErrorCodeTRT.INTERNAL_ERROR, str(number))
    assert journal.recorder.has_overflowed()
    assert "and 94 more" in str(journal.failure("do something"))


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "dtype": ({"dtype": "float64"}, Unsupported, "dtype 'float64' is not one of auto, float32"),
    "quantization": ({"quantization": "int4"}, Unsupported, "not offer quantization='int4'; it offers: fp8, int8-rows"),
    "kv_cache_dtype": ({"kv_cache_dtype": "float16"}, Unsupported, "kv_cache_dtype"),
    "tensor_parallel_size": ({"tensor_parallel_size": 2}, Unsupported, "tensor_parallel_size 2"),
    "max_model_len": ({"max_model_len": 10**6}, ValueError, "max_model_len"),
    "option": (
        {"options": {"workspace": "1"}},
        ValueError,
        "unknown option 'workspace'; the options are: engine_cache",
    ),
    "number": ({"options": {"workspace_mib": "all"}}, ValueError, "workspace_mib is 'all', expected a number from 1"),
    "level": ({"options": {"optimization_level": "6"}}, ValueError, "expected a number from 0 to 5"),
    "choice": ({"options": {"refit": "maybe"}}, ValueError, "refit is 'maybe', expected one of on, off"),
    "timings": ({"options": {"timing_cache": "1"}}, ValueError, "expected one of on, strict, off"),
    "rows": (
        {"num_blocks": 10**6, "block_size": 64},
        ValueError,
        r"1000000 row\(s\) of 64 tokens need .* lower max_model",
    ),
}


@pytest.mark.parametrize(("change", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_built(
    bench: Bench, world: Any, change: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        bench.load(**change)
    assert not world.CALLS


def test_memory_that_is_taken_while_building_is_told(bench: Bench) -> None:
    bench.load()
    bench.device.total = bench.device.used + 6000  # the plan is there; its scratch memory does not fit
    with pytest.raises(ValueError, match=r"K/V cache|scratch memory"):
        bench.load()


Breaks = Callable[[Any], None]


def _misplace(runner: Any) -> None:
    address = runner._cache.address
    runner._cache.address = lambda name, row: address(name, row) + 64 * (name == "past_value.1")


def _leave_the_profile(runner: Any) -> None:
    runner._cover = lambda rows: [(0, 5)]


@pytest.mark.parametrize(("breaks", "words"), [(_misplace, "multiple of 256"), (_leave_the_profile, "not within")])
def test_wrong_addresses_and_shapes_do_not_reach_the_gpu(bench: Bench, breaks: Breaks, words: str) -> None:
    """What these guard against is silent corruption on a GPU."""
    runner = bench.load(num_blocks=6, block_size=64)
    breaks(runner)
    rig = Rig(runner)
    batch = rig.batch([(rig.strand([1, 2, 3]), 3, 1), (rig.strand([4, 5, 6], row_id=1), 3, 1)])
    with pytest.raises((ValueError, error()), match=words):
        np.asarray(runner.forward(replace(batch)))
