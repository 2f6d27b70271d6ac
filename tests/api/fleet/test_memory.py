"""The budget: estimates come near what engines report, refusals show the arithmetic, only idle models are let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from isotoken.api.engine import AsyncEngine
from isotoken.api.fleet.memory import Budget, DoesNotFit, Holder, Need, estimate
from isotoken.api.fleet.settings import EngineOptions, FleetSettings, ModelSettings, of_config
from isotoken.api.fleet.sizes import read_size, write_size
from isotoken.plugins.build import EngineConfig
from pydantic import ValidationError

MIB = 2**20


def test_engine_options_are_those_of_engine_config() -> None:
    config = EngineConfig(model="folder")
    ours = {name: field.get_default(call_default_factory=True) for name, field in EngineOptions.model_fields.items()}
    assert ours == {each.name: getattr(config, each.name) for each in fields(config) if each.name != "model"}
    assert of_config("a", config).config("folder") == config


def test_the_estimate_is_what_the_engine_reports(model_dir: Path) -> None:
    settings = ModelSettings(name="a", backend="reference", dtype="float32", num_blocks=64, max_model_len=256)

    async def reported() -> tuple[int, int]:
        engine = await AsyncEngine.start(settings.config(str(model_dir)))
        await engine.stop()
        return engine.info.weight_bytes, engine.info.kv_cache_bytes

    need = estimate(model_dir, settings).need
    assert (need.weights, need.kv_cache) == asyncio.run(reported())


def test_kv_memory_becomes_blocks(model_dir: Path) -> None:
    found = estimate(model_dir, ModelSettings(name="a", kv_memory="1MiB"))
    assert found.num_blocks == MIB // (2 * 2 * 16 * 16 * 4)  # keys and values, layers, K/V width, tokens, bytes
    assert found.need.kv_cache <= MIB
    assert (
        estimate(model_dir, ModelSettings(name="a", kv_memory="1MiB", kv_cache_dtype="int8")).num_blocks
        > 3 * found.num_blocks
    )


def test_what_does_not_fit_is_refused_with_the_arithmetic() -> None:
    holders = [Holder("big@1", Need(600 * MIB, 100 * MIB, exact=True))]
    with pytest.raises(DoesNotFit) as refused:
        Budget(1000 * MIB).make_room("new@2", Need(300 * MIB, 50 * MIB), holders)
    for part in ("about 350.00 MiB", "weights 300.00 MiB + K/V 50.00 MiB", "budget of 1000.00 MiB", "300.00 MiB free"):
        assert part in str(refused.value)
    assert "big@1 takes 700.00 MiB (weights 600.00 MiB + K/V 100.00 MiB)" in str(refused.value)
    assert Budget(1000 * MIB).make_room("new@2", Need(300 * MIB, 0), holders) == []
    assert Budget(0).make_room("new@2", Need(10**15, 0), holders) == []


def test_the_longest_idle_go_and_no_more_than_needed() -> None:
    def holder(name: str, mib: int, last_used: float, evictable: bool = True) -> Holder:
        return Holder(name, Need(mib * MIB, 0), evictable, last_used)

    holders = [holder("a", 300, 3.0), holder("b", 300, 1.0), holder("c", 300, 2.0), holder("busy", 100, 0.0, False)]
    budget = Budget(1000 * MIB)
    assert budget.make_room("new", Need(250 * MIB, 0), holders) == ["b"]
    assert budget.make_room("new", Need(600 * MIB, 0), holders) == ["b", "c"]
    with pytest.raises(DoesNotFit, match=r"900\.00 MiB of which are idle"):
        budget.make_room("new", Need(950 * MIB, 0), holders)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 512 * MIB), ("2 GiB", 2**31), ("1.5G", 3 * 2**29), ("10MB", 10**7), ("1e9", 10**9), ("7", 7), (7, 7)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert read_size(text) == size
    assert ModelSettings(name="a", kv_memory=text).kv_memory == size
    assert write_size(512 * MIB) == "512.00 MiB"


@pytest.mark.parametrize("text", ["", "lots", "2 giga", "-1MiB", "1MiB2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is no size"):
        FleetSettings(memory=text)


@pytest.mark.parametrize("name", ["", "a@b", "a b", "-a", "x" * 97, "a\n", "ä"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be a model's name"):
        ModelSettings(name=name)


def test_a_name_is_given_once(make_version: Callable[[int], Path]) -> None:
    models = [{"name": "a", "aliases": ["chat"]}, {"name": "b", "aliases": ["chat"]}]
    with pytest.raises(ValidationError, match="'chat' is given to two models"):
        FleetSettings(models=models)
    with pytest.raises(ValidationError, match="default = 'c' is none of the models' names: a"):
        FleetSettings(models=[{"name": "a"}], default="c")
