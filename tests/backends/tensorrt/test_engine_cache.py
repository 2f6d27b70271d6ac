"""The engine cache: what names an engine, what is kept and how, and when it is built anew."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .conftest import Answer, Bench

BUILD = "Builder.build_serialized_network"


def test_an_engine_is_built_once(bench: Bench, world: Any, answer: Answer) -> None:
    first = answer(bench.load(), [5, 6, 7])
    assert world.CALLS.count(BUILD) == 1
    assert (answer(bench.load(), [5, 6, 7]) == first).all()
    assert world.CALLS.count(BUILD) == 1
    assert len(bench.plans()) == 1


def test_ahead_of_time_is_what_load_needs(bench: Bench, world: Any) -> None:
    told: list[tuple[str, float]] = []
    path = bench.backend.build(bench.checkpoint(), bench.config(), lambda *progress: told.append(progress))
    assert path == bench.plans()[0]
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(set(shares)) > 5
    assert told[0][0] == "Building Engine"
    bench.load()
    assert world.CALLS.count(BUILD) == 1
    again = bench.backend.build(bench.checkpoint(), bench.config(), lambda *progress: told.clear())
    assert again == path
    assert told, "it was built again"


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float16"},
        {"max_model_len": 80},
        {"max_num_seqs": 5},
        {"max_num_batched_tokens": 32},
        {"options": {"workspace_mib": "8"}},
        {"options": {"optimization_level": "1"}},
        {"options": {"refit": "on"}},
        {"options": {"verify_tokens": "4"}},
    ],
    ids=str,
)
def test_what_an_engine_depends_on_names_another(bench: Bench, change: dict[str, Any]) -> None:
    bench.load()
    bench.load(**change)
    assert len(bench.plans()) == 2


@pytest.mark.parametrize(
    "change", [{"num_blocks": 9}, {"options": {"cuda_graphs": "off"}}, {"memory_fraction": 0.5}], ids=str
)
def test_what_it_does_not_depend_on_names_the_same(bench: Bench, change: dict[str, Any]) -> None:
    bench.load()
    bench.load(**change)
    assert len(bench.plans()) == 1


def test_another_version_gpu_or_weights_names_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt

    bench.load()
    monkeypatch.setattr(tensorrt, "__version__", "10.16.1.11")
    bench.load()
    monkeypatch.setattr(bench.device, "model", "Other GPU, compute capability 8.9")
    bench.load()
    weights = bench.checkpoint().path / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    bench.load()
    assert len(bench.plans()) == 4


def test_a_damaged_engine_is_built_anew(bench: Bench, world: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench.load()
    (path,) = bench.plans()
    path.write_bytes(path.read_bytes()[:-100])
    bench.load()
    assert "damaged" in caplog.text
    assert world.CALLS.count(BUILD) == 2
    path.with_suffix(".json").write_text("{")
    bench.load()
    assert world.CALLS.count(BUILD) == 3


def test_it_says_what_it_was_built_for(bench: Bench) -> None:
    bench.load()
    note = json.loads(bench.plans()[0].with_suffix(".json").read_text())
    assert note["built_for"]["gpu"] == bench.device.model
    assert [name for name, _ in note["built_for"]["profiles"]] == ["decode", "prefill", "verify"]
    assert note["num_bytes"] == bench.plans()[0].stat().st_size


def test_it_is_written_whole_or_not_at_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        bench.load()
    assert not list((bench.folder / "cache").iterdir())


def test_it_is_the_owners_alone(bench: Bench) -> None:
    bench.load()
    assert (bench.folder / "cache").stat().st_mode & 0o077 == 0


def test_it_can_be_switched_off(bench: Bench) -> None:
    bench.load(options={"engine_cache": "off"})
    assert not (bench.folder / "cache").exists()
    with pytest.raises(ValueError, match="engine_cache=off"):
        bench.backend.build(bench.checkpoint(), bench.config(options={"engine_cache": "off"}), lambda *progress: None)


def test_the_default_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from isotoken.backends.tensorrt.options import Options

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Options.read({}).engine_cache == tmp_path / "isotoken" / "tensorrt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert Options.read({}).engine_cache == Path.home() / ".cache" / "isotoken" / "tensorrt"


def test_timings_are_kept_for_each_target(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from isotoken.backends.tensorrt.errors import TensorRTError

    with pytest.raises(TensorRTError, match="timing cache does not fit"):
        bench.load(options={"timing_cache": "strict"})
    bench.load()  # takes the timings
    bench.plans()[0].unlink()
    bench.load(options={"timing_cache": "strict"})  # from which the same engine can be built without taking any
    assert len(list((bench.folder / "cache").glob("timings-*"))) == 1
    bench.load(options={"timing_cache": "off", "workspace_mib": "9"})
    monkeypatch.setattr(bench.device, "model", "Other GPU, compute capability 8.9")
    bench.load()
    assert len(list((bench.folder / "cache").glob("timings-*"))) == 2


def test_a_key_is_a_function_of_its_parts() -> None:
    from isotoken.backends.tensorrt.store import Key

    key = Key({"a": 1, "b": [2, 3]})
    assert key.digest == Key({"b": [2, 3], "a": 1}).digest
    assert key.digest != replace(key, parts={"a": 1, "b": [3, 2]}).digest
