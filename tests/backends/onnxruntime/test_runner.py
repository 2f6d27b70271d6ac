"""What the onnxruntime runner promises besides right logits: splitting, limits, honest info, errors in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from isotoken.backends.onnxruntime import plugin, session, sizes
from isotoken.backends.onnxruntime import runner as runner_module
from isotoken.backends.onnxruntime.backend import OnnxRuntimeBackend, no_cuda
from isotoken.backends.onnxruntime.options import Options
from isotoken.conformance.rig import Rig
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.types import Unsupported

from .helpers import MAX_MODEL_LEN, load

Models = Callable[[str], Checkpoint]
TOKENS = [(7 * i) % 120 for i in range(MAX_MODEL_LEN)]


def test_a_chunk_that_is_cut_because_of_its_scores_has_the_same_bits(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for limit in (runner_module.SCORES_BYTES, 1):  # the second: pieces of 16
        monkeypatch.setattr(runner_module, "SCORES_BYTES", limit)
        runner = load(models("gemma2"))
        rig = Rig(runner)
        strand = rig.strand(TOKENS)
        found.append(np.concatenate([rig.step([(strand, 49, 49)])[0], rig.step([(strand, 40, 3)])[0]]))
        runner.close()
    assert np.array_equal(*found)


def test_the_last_position_of_the_context_can_be_a_chunk_of_its_own(models: Models) -> None:
    runner = load(models("llama"))
    rig = Rig(runner)
    whole, cut = rig.strand(TOKENS), rig.strand(TOKENS, row_id=1)
    due = rig.step([(whole, MAX_MODEL_LEN, 1)])[0]
    rig.step([(cut, MAX_MODEL_LEN - 1, 0)])
    assert np.array_equal(rig.step([(cut, 1, 1)])[0], due)
    runner.close()


def test_logits_come_in_the_order_of_the_batch(models: Models) -> None:
    runner = load(models("llama"))
    rig = Rig(runner)
    strands = [rig.strand(TOKENS[i : i + 30], row_id=i) for i in range(5)]
    rig.step([(s, 10, 1) for s in strands])
    work = [(strands[3], 1, 1), (strands[0], 5, 2), (strands[1], 1, 1), (strands[4], 3, 0), (strands[2], 1, 1)]
    batch = rig.batch(work)
    together = np.array(runner.forward(batch))
    one_by_one = [np.array(runner.forward(batch.select([i]))) for i in range(5)]
    assert np.array_equal(together, np.concatenate(one_by_one))
    runner.close()


def test_a_decode_without_logits_still_writes(models: Models) -> None:
    runner = load(models("llama"))
    rig = Rig(runner)
    one, other = rig.strand(TOKENS[:20]), rig.strand(TOKENS[:20], row_id=1)
    for strand, wanted in ((one, 1), (other, 0)):
        rig.step([(strand, 10, 1)])
        assert len(rig.step([(strand, 1, wanted)])[0]) == wanted
    assert np.allclose(rig.step([(one, 9, 1)])[0], rig.step([(other, 9, 1)])[0], atol=1e-4)
    runner.close()


def test_progress_is_told_as_the_weights_are_read(models: Models) -> None:
    read: dict[str, int] = {}
    source = Checkpoint.open(models("qwen3").path, on_read=read.__setitem__)
    for quantization in (None, "int4"):
        runner = load(source, quantization=quantization)
        assert sum(read.values()) == source.num_bytes
        runner.close()


def test_info_counts_weights_and_rows(models: Models) -> None:
    source = models("llama")  # stored in float32
    runner = load(source)
    assert 0.9 * source.num_bytes < runner.info.weight_bytes <= source.num_bytes
    assert runner.info.kv_cache_bytes == runner._rows.array.nbytes  # type: ignore[attr-defined]
    assert (runner.info.block_size, runner.info.num_blocks) == (MAX_MODEL_LEN, 14)
    widened = load(models("qwen3"))  # stored in bfloat16
    assert 1.5 * models("qwen3").num_bytes < widened.info.weight_bytes <= 2.1 * models("qwen3").num_bytes
    widened.close()
    small = load(source, quantization="int4", kv_cache_dtype="float16", num_blocks=0)
    assert small.info.weight_bytes < runner.info.weight_bytes
    assert small.info.kv_cache_bytes * 14 == runner.info.kv_cache_bytes * small.info.num_blocks / 2
    assert small.info.num_blocks > small.info.max_num_seqs, "rows in which prefixes stay warm"
    for each in (runner, small):
        each.close()


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("model", ["llama", "qwen3", "gemma2", "moe"])  # tied or not, in 16 bits or 32, with routers
def test_what_the_weights_will_take_is_known_beforehand(models: Models, model: str, quantization: str | None) -> None:
    source = models(model)
    due = sizes.expected_weight_bytes(source, quantization, "float32")
    runner = load(source, quantization=quantization)
    assert abs(due - runner.info.weight_bytes) < 0.05 * due  # constants of the graph, in so small a model
    runner.close()


def test_what_verifying_a_draft_costs_is_said(models: Models) -> None:
    """By the weights: the fewer bits they have, the more of a step is arithmetic."""
    costs = []
    for quantization in (None, "int8", "int4"):
        runner = load(models("llama"), quantization=quantization)
        costs.append(runner.info.verify_cost)
        runner.close()
    assert 0 < costs[0] < costs[1] < costs[2] < 1


def test_a_closed_runner_says_so(models: Models) -> None:
    runner = load(models("llama"))
    rig = Rig(runner)
    batch = rig.batch([(rig.strand(TOKENS), 3, 1)])
    runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        runner.forward(batch)


def test_what_does_not_fit_is_refused_before_anything_is_read(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isotoken.backends.onnxruntime.backend.available_bytes", lambda: 100_000)
    read: list[str] = []
    source = Checkpoint.open(models("llama").path, on_read=lambda name, _: read.append(name))
    with pytest.raises(ValueError, match=r"do not fit .*lower max_model_len"):
        load(source, num_blocks=0)
    assert not read


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dtype": "bfloat16"}, Unsupported, "dtype 'bfloat16'"),
        ({"dtype": "float64"}, Unsupported, "dtype 'float64'"),
        ({"quantization": "fp8"}, Unsupported, "not offer quantization='fp8'; it offers: int4, int8"),
        ({"kv_cache_dtype": "int8"}, Unsupported, "not offer kv_cache_dtype='int8'; it offers: auto, float16"),
        ({"tensor_parallel_size": 2}, Unsupported, "tensor_parallel_size 2"),
        ({"options": {"spin": "on"}}, ValueError, "unknown option 'spin'; the options are: allow_spinning"),
        ({"options": {"allow_spinning": "yes"}}, ValueError, "allow_spinning is 'yes', expected one of brief, off, on"),
        ({"max_num_seqs": 0}, ValueError, "max_num_seqs is 0"),
        ({"num_threads": -1}, ValueError, "num_threads is -1"),
        ({"max_num_logits": 3}, ValueError, "max_num_logits is 3"),
        ({"max_model_len": 100_000}, ValueError, "max_model_len is 100000"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    models: Models, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(models("llama"), **settings)


def test_options_reach_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = session.session_options(Options.read({"allow_spinning": "off"}), 3, {})
    assert settings.intra_op_num_threads == 3
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    settings = session.session_options(
        Options.read({"allow_spinning": "on", "graph_optimization": "off"}), 0, {"a.b": "c"}
    )
    assert settings.intra_op_num_threads == len(os.sched_getaffinity(0))
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert settings.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert settings.get_session_config_entry("a.b") == "c"


@pytest.mark.skipif(session.spinning("brief") == session.spinning("off"), reason="it would spin without an end")
def test_threads_spin_but_briefly_unless_told_otherwise() -> None:
    settings = session.session_options(Options.read({}), 2, {})
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert settings.get_session_config_entry("session.intra_op.spin_duration_us") == "20"


@pytest.mark.parametrize(("version", "allowed"), [("1.24.0", "0"), ("1.25.2", "0"), ("1.26.0", "1"), ("2.0.1", "1")])
def test_threads_do_not_spin_briefly_where_there_is_no_end(version: str, allowed: str) -> None:
    assert session.spinning("brief", version)["allow_spinning"] == allowed
    assert session.spinning("on", version) == {"allow_spinning": "1"}
    assert session.spinning("off", version) == {"allow_spinning": "0"}


def test_a_graph_that_this_runtime_does_not_run_is_refused_in_words(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise session.runtime.NotImplemented("Could not find an implementation for TensorScatter(24)")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(Unsupported, match=r"onnxruntime [\d.]+ does not run the graph of .*TensorScatter"):
        load(models("llama"))


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_flash_attention_is_off_only_while_a_session_is_made(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is None:
        monkeypatch.delenv(session.NO_FLASH, raising=False)
    else:
        monkeypatch.setenv(session.NO_FLASH, before)
    with session.flash_attention(False):
        assert os.environ[session.NO_FLASH] == "1"
    assert os.environ.get(session.NO_FLASH) == before


def test_flash_attention_can_be_had(models: Models) -> None:
    """Right within rounding; its bits may depend on where a prompt is cut, which is why it is off."""
    found = []
    for flash in ("on", "off"):
        runner = load(models("llama"), options={"flash_attention": flash})
        rig = Rig(runner)
        found.append(rig.step([(rig.strand(TOKENS), MAX_MODEL_LEN, MAX_MODEL_LEN)])[0])
        runner.close()
    assert np.allclose(*found, atol=1e-4)


def test_two_runtimes_in_one_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "version", lambda name: "1.31.1")
    with pytest.raises(Unsupported, match=r"onnxruntime 1\.31\.1 and onnxruntime-gpu 1\.31\.1 are both installed"):
        plugin.load_backend()


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(plugin, "import_module", refuse)
    with pytest.raises(Unsupported, match=r"pip install 'isotoken\[onnxruntime\]'"):
        plugin.load_backend()


@pytest.mark.skipif(not no_cuda(), reason="there is one here")
def test_the_gpu_is_not_offered_where_there_is_none() -> None:
    backend = OnnxRuntimeBackend()
    assert backend.capabilities.devices == {"cpu"}
