"""Quantised weights are packed once: later starts read them, and anything amiss only costs the time to pack again."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that the backend says."""
    caplog.set_level(logging.INFO, "isotoken.native")
    return caplog


def test_weights_that_are_not_quantised_are_not_kept(
    models: Models, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    logits(models("llama"), tmp_path, quantization=None)
    assert not list(tmp_path.iterdir())
    assert "packed weights are not kept: only those are that are quantised" in told.text


def test_small_ones_are_not_either(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    logits(models("llama"), tmp_path)
    assert not list(tmp_path.iterdir())
    assert "packed weights are not kept: 0." in told.text
    assert "from 16.0 MiB on it may pay" in told.text


def test_the_log_says_what_became_of_them(
    models: Models, tmp_path: Path, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models("llama")
    for words in ("packed weights are kept in", "packed weights were read from"):
        logits(source, tmp_path)
        assert f"{words} {next(tmp_path.iterdir())}" in told.text
        told.clear()
    monkeypatch.setattr(pack_cache.shutil, "disk_usage", lambda _: Free(free=1000))
    logits(source, tmp_path / "new")
    assert "there is no room to keep" in told.text
    assert "are kept in" not in told.text


class Free(NamedTuple):
    """What shutil.disk_usage tells, as far as it is asked for."""

    free: int


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


def test_a_folder_that_cannot_be_written_costs_nothing_else(
    models: Models, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "file"
    place.write_text("not a folder")
    assert np.isfinite(logits(models("llama"), place)).all()
    assert f"option pack_cache: packed weights cannot be kept in {place} (" in told.text
    assert "name a folder that can be written, or off" in told.text
    assert "are kept in" not in told.text


def plan_of(source: Checkpoint) -> Plan:
    return Plan(source, Precision(dtype="float32", quantization="int8", kv_dtype="float32"))


def test_what_killed_processes_left_is_deleted_and_what_others_write_is_counted(models: Models, tmp_path: Path) -> None:
    source, memory = models("llama"), np.zeros(64 * 1024, np.uint8)
    for name, age in (("old.tmp", 2 * pack_cache.ABANDONED_SECONDS), ("new.tmp", 0.0)):
        (tmp_path / name).write_bytes(bytes(90_000))
        os.utime(tmp_path / name, times=(0, time.time() - age))
    (tmp_path / "other.packed").write_bytes(bytes(64_000))
    cache = PackCache(tmp_path, source, plan_of(source), max_bytes=200_000)
    assert cache.save(memory)
    assert {path.name for path in tmp_path.iterdir()} == {"new.tmp", cache.path.name}


def test_a_write_that_fails_leaves_nothing(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = models("llama")
    seen: list[str] = []

    def fail(self: Path, _: Path) -> None:
        seen.append(self.suffix)
        raise OSError("the disk is gone")

    monkeypatch.setattr(Path, "replace", fail)
    assert not PackCache(tmp_path, source, plan_of(source)).save(np.zeros(1024, np.uint8))
    assert seen == [".tmp"]
    assert not list(tmp_path.iterdir())


def test_files_that_others_delete_meanwhile_do_not_matter(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models("llama")
    for name in ("a.packed", "b.packed", "c.tmp"):
        (tmp_path / name).write_bytes(bytes(10))
    find = Path.glob

    def find_and_lose(self: Path, pattern: str) -> list[Path]:
        found = list(find(self, pattern))
        for path in found:
            path.unlink()
        return found

    monkeypatch.setattr(Path, "glob", find_and_lose)
    cache = PackCache(tmp_path, source, plan_of(source))
    assert cache.save(np.zeros(1024, np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == [cache.path.name]


def test_the_least_recently_used_files_make_room(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models("llama")
    plan = plan_of(source)
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
    assert not big.save(memory)
    assert not big.path.exists()
