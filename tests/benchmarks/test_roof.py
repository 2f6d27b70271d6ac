"""What the machine could do, and what of it a workload needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from isotoken.api.bench.machine import machine_facts, num_cpus, versions
from isotoken.api.bench.models import ensure_model
from isotoken.api.bench.roof import Model, Roof, RoofMeter, weight_bytes
from isotoken.api.bench.workloads import make_workload

LAYERS, HEAD = 10_000_000, 1_000_000


def test_the_machine_is_measured_in_a_process_of_its_own() -> None:
    with RoofMeter(4_000_000, ["float32", "bfloat16", "int8"], threads=1) as meter:
        roofs = [meter.measure() for _ in range(2)]
    assert all(roof.bytes_per_second > 1e8 for roof in roofs)
    assert all(set(roof.flops_per_second) == {"float32", "bfloat16", "int8"} for roof in roofs)
    with RoofMeter(4_000_000, ["float32"], threads=1) as meter:
        assert set(meter.measure().flops_per_second) == {"float32"}
    best = Roof.best(roofs)
    assert best.bytes_per_second == max(roof.bytes_per_second for roof in roofs)
    assert best.flops_per_second["int8"] == max(roof.flops_per_second["int8"] for roof in roofs)


def test_a_process_that_ended_is_told() -> None:
    with RoofMeter(1000, ["float32"], threads=1) as meter:
        meter._process.kill()
        meter._process.wait()
        with pytest.raises(RuntimeError, match="ended with code"):
            meter.measure()


def test_the_parameters_of_a_model_are_counted(tiny: Path) -> None:
    model = Model.of(tiny)
    attention, mlp, norms = 128 * 128 * 2 + 128 * 64 * 2, 3 * 128 * 256, 2 * 128
    assert model.layer_parameters == 2 * (attention + mlp + norms)
    assert model.head_parameters == 32000 * 128
    assert model.num_bytes == 2 * (model.layer_parameters + 2 * model.head_parameters + 128)


@pytest.mark.parametrize(
    ("dtype", "quantization", "num_bytes"),
    [("float32", None, 4.0), ("bfloat16", None, 2.0), ("float32", "int8", 1.125), ("float32", "int4", 0.625)],
)
def test_a_single_stream_reads_the_weights_once_a_token(dtype: str, quantization: str | None, num_bytes: float) -> None:
    roof = Roof(11e9, {})
    rate = Model(LAYERS, HEAD).roof_rate(make_workload("W1"), roof, dtype, quantization)
    assert weight_bytes(dtype, quantization) == num_bytes
    assert rate == pytest.approx(11e9 / (num_bytes * 11e6))


def test_the_others_multiply(tiny: Path) -> None:
    roof, model = Roof(1.0, {"float32": 2e9}), Model(LAYERS, HEAD)
    prefill = 4 * 512 / ((4 * 512 * LAYERS + 4 * HEAD) / 1e9)
    assert model.roof_rate(make_workload("prefill"), roof, "float32") == pytest.approx(prefill)
    w4 = 32 * 16 / (((512 + 32 * 16 + 32 * 16) * LAYERS + 32 * 16 * HEAD) / 1e9)  # the shared prefix once
    assert model.roof_rate(make_workload("W4"), roof, "float32") == pytest.approx(w4)
    assert model.roof_rate(make_workload("W2"), roof, "bfloat16") is None  # not measured
    assert model.roof_rate(make_workload("W2"), roof, "float32", "int8") is None  # integers are the higher roof


def test_random_models_are_made_once_and_are_the_same(cache: Path, tmp_path: Path) -> None:
    first, again = ensure_model("tiny", cache), ensure_model("tiny", tmp_path)
    before = (first / "model.safetensors").stat().st_mtime_ns
    assert (first / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert ensure_model("tiny", cache) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="125m, 500m, tiny"):
        ensure_model("7b", tmp_path)


def test_the_machine_has_facts() -> None:
    facts = machine_facts()
    assert facts["processor"]
    assert int(facts["CPUs"]) == num_cpus() >= 1
    assert {"isotoken", "numpy"} <= set(versions())
