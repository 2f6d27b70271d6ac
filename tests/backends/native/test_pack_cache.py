"""Quantised weights are packed once: later starts read them, and anything amiss only costs the time to pack again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from isotoken.backends.native import backend, pack_cache
from isotoken.backends.native.pack_cache import PackCache
from isotoken.backends.native.precision import Precision
from isotoken.backends.native.weights_plan import Plan
from isotoken.conformance.rig import Array, Rig
from isotoken.core.checkpoint import Checkpoint

from .helpers import TOKENS, load_on_twins
from .twin_executor import Twins

Models = Callable[[str], Checkpoint]
FORM = {"quantization": "w4a8"}


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "WORTH_KEEPING", 0)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The form of each piece that is packed, from now on."""
    forms: list[int] = []
    pack = Twins.pack

    def counted(self: Twins, form: int, *arguments: object) -> None:
        forms.append(form)
        pack(self, form, *arguments)

    monkeypatch.setattr(Twins, "pack", counted)
    return forms


def logits(source: Checkpoint, folder: Path, **changes: object) -> Array:
    runner = load_on_twins(source, **(FORM | changes), options={"pack_cache": str(folder)})
    rig = Rig(runner)
    rows = rig.step([(rig.strand(TOKENS[:20]), 20, 20)])[0]
    runner.close()
    return rows


def test_a_second_start_packs_nothing_and_answers_the_same(models: Models, tmp_path: Path, packed: list[int]) -> None:
    source = models("moe")
    first = logits(source, tmp_path)
    assert packed
    packed.clear()
    read: dict[str, int] = {}
    watched = Checkpoint.open(source.path, on_read=read.__setitem__)
    assert np.array_equal(logits(watched, tmp_path), first)
    assert not packed
    assert sum(read.values()) == source.num_bytes, "progress is told all the same"
    assert len(list(tmp_path.iterdir())) == 1, "nothing is left over from writing"


def test_weights_that_are_not_quantised_are_not_kept(models: Models, tmp_path: Path) -> None:
    logits(models("llama"), tmp_path, quantization=None)
    assert not list(tmp_path.iterdir())


def test_small_ones_are_not_either(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    logits(models("llama"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_form_or_model_has_another_file(models: Models, tmp_path: Path) -> None:
    for model, changes in (("llama", {}), ("llama", {"quantization": "int8"}), ("qwen3", {})):
        logits(models(model), tmp_path, **changes)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_changed_checkpoint_is_packed_anew(models: Models, tmp_path: Path, packed: list[int]) -> None:
    source = models("llama")
    logits(source, tmp_path)
    packed.clear()
    file = source.path / "model.safetensors"
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    logits(Checkpoint.open(source.path), tmp_path)
    assert packed


@pytest.mark.parametrize("damage", ["truncated", "longer", "a bit", "the header", "empty"])
def test_a_damaged_file_is_made_anew(models: Models, tmp_path: Path, packed: list[int], damage: str) -> None:
    source = models("llama")
    first = logits(source, tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    match damage:
        case "truncated":
            del data[-4096:]
        case "longer":
            data += b"\0"
        case "a bit":
            data[-5000] ^= 1
        case "the header":
            data[0] ^= 1
        case "empty":
            data.clear()
    path.write_bytes(data)
    packed.clear()
    assert np.array_equal(logits(source, tmp_path), first)
    assert packed
    packed.clear()
    logits(source, tmp_path)
    assert not packed, "the new file is whole"


def test_a_folder_that_cannot_be_written_costs_nothing_else(models: Models, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("not a folder")
    assert np.isfinite(logits(models("llama"), place)).all()


def test_the_least_recently_used_files_make_room(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models("llama")
    plan = Plan(source, Precision(dtype="float32", quantization="int8", kv_dtype="float32"))
    memory = np.zeros(64 * 1024, np.uint8)
    caches = [PackCache(tmp_path, source, plan, max_bytes=200_000) for _ in range(4)]
    for age, (name, cache) in enumerate(zip("abcd", caches, strict=True)):
        cache.path = tmp_path / f"{name}.packed"
        cache.save(memory)
        os.utime(cache.path, ns=(0, 10**9 * (10 + age)))
        if name == "b":
            os.utime(tmp_path / "a.packed", ns=(0, 10**9 * 100))  # a is used again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.packed", "d.packed"]
    monkeypatch.setattr(pack_cache, "MAX_FILES", 1)
    caches[2].save(memory)
    assert [path.name for path in tmp_path.iterdir()] == ["c.packed"]
    big = PackCache(tmp_path, source, plan, max_bytes=100)
    big.save(memory)
    assert not big.path.exists()
