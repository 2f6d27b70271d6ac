"""A version is what a folder holds: every byte that decides an answer counts, and where it lies does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from isotoken.api.fleet.contents import Cancelled, Hasher, counted_files, stamp
from isotoken.api.fleet.settings import ModelSettings
from isotoken.api.fleet.versions import Version, find_key, split_key


@pytest.fixture
def folder(model_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(model_dir, tmp_path / "model")
    return tmp_path / "model"


def test_anyone_can_check_the_hash(folder: Path) -> None:
    names = [path.name for path in counted_files(folder)]
    assert set(names) >= {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    command = f"LC_ALL=C sha256sum {' '.join(names)} | sha256sum"
    told = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True).stdout.split()[0]
    assert Hasher().hash(folder) == told


def test_every_counted_file_counts_and_others_do_not(folder: Path) -> None:
    before = Hasher().hash(folder)
    (folder / "README.md").write_text("hello")
    assert Hasher().hash(folder) == before
    moved = folder.rename(folder.with_name("elsewhere"))
    assert Hasher().hash(moved) == before
    for path in counted_files(moved):
        content = path.read_bytes()
        changed = bytearray(content)
        changed[-1] ^= 1 if path.suffix == ".safetensors" else 0
        path.write_bytes(bytes(changed) if bytes(changed) != content else content + b"\n")
        assert Hasher().hash(moved) != before, path
        path.write_bytes(content)
    (moved / "chat_template.jinja").write_text("{{ messages }}")
    assert Hasher().hash(moved) != before


def test_a_file_is_read_once_until_it_changes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    memory = tmp_path / "data" / "hashes.json"
    first = Hasher(memory).hash(folder)
    reads = []
    digest = Hasher._digest
    monkeypatch.setattr(
        Hasher, "_digest", lambda self, path, *rest: reads.append(path.name) or digest(self, path, *rest)
    )
    assert Hasher(memory).hash(folder) == first
    assert reads == []
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert Hasher(memory).hash(folder) != first
    assert reads == ["config.json"]


def test_progress_is_told_and_a_hash_can_be_called_off(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    Hasher().hash(folder, lambda done, total: told.append((done, total)))
    total = sum(path.stat().st_size for path in counted_files(folder))
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        Hasher().hash(folder, stop=stop)


def test_a_stamp_changes_when_a_file_is_replaced(folder: Path) -> None:
    before = stamp(folder)
    assert stamp(folder) == before
    content = (folder / "model.safetensors").read_bytes()
    (folder / "new").write_bytes(content)
    (folder / "new").replace(folder / "model.safetensors")
    assert stamp(folder) != before


def test_settings_that_decide_tokens_belong_to_the_version() -> None:
    contents = "ab" * 32
    plain = Version.of(ModelSettings(name="a"), contents)
    assert plain.key == "a@abababababab"
    assert Version.of(ModelSettings(name="a", max_num_seqs=3, kv_memory="1GiB", drafter="ngram"), contents) == plain
    others = [{"quantization": "int8"}, {"dtype": "float32"}, {"chat_template": "x"}, {"options": {"a": "b"}}]
    keys = {Version.of(ModelSettings(name="a", **other), contents).key for other in others}
    assert len(keys | {plain.key}) == len(others) + 1


def test_versions_are_found_by_their_first_digits() -> None:
    keys = ["a@012345678901", "a@012399999999", "owner/b@0123aaaaaaaa"]
    assert find_key("a@01234", keys) == ["a@012345678901"]
    assert find_key("a@0123", keys) == keys[:2]
    assert find_key("owner/b@0123AAAA", keys) == keys[2:]
    assert find_key("a@012345678901" + "f" * 52, keys) == keys[:1]
    assert find_key("a@012", keys) == find_key("a", keys) == find_key("@0123", keys) == []
    assert split_key("owner/b@0123") == ("owner/b", "0123")
    assert split_key("a") == ("a", "")
