"""Options, threads and settings: what is read, what is granted, and what is refused in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from isotoken.backends.native import options as options_module
from isotoken.backends.native.options import Options, cpu_quota, settle_threads, usable_cpus
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.types import Unsupported

from .helpers import load, load_on_twins

Models = Callable[[str], Checkpoint]


def test_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = Options.read({})
    assert found == Options(pin=False, spin_us=200, isa="", pack_cache=None)
    assert Options.read({"pack_cache": "auto"}).pack_cache == tmp_path / "isotoken" / "native"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert Options.read({"pack_cache": "auto"}).pack_cache == Path.home() / ".cache" / "isotoken" / "native"


def test_all_of_them_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "usable_cpus", lambda: [0, 2, 3])
    found = Options.read({"pin": "3, 0", "spin_us": "0", "isa": "avx2", "pack_cache": "~/kept"})
    assert found == Options(pin=(3, 0), spin_us=0, isa="avx2", pack_cache=Path.home() / "kept")
    assert Options.read({"pin": "on", "pack_cache": "off"}).pin is True
    assert Options.read({"pack_cache": "off"}).pack_cache is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pins": "on"}, "unknown option 'pins'; the options are: pin, spin_us, isa, pack_cache"),
        ({"pin": "yes"}, "option pin is 'yes', expected off, on, or CPUs such as 0,1,2"),
        ({"pin": "0,0"}, "option pin is '0,0', expected different CPUs out of"),
        ({"pin": "99999"}, "expected different CPUs out of"),
        ({"spin_us": "long"}, "option spin_us is 'long', expected a number from 0 to 1000000"),
        ({"spin_us": "1000001"}, "expected a number from 0 to 1000000"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(given: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Options.read(given)


def test_threads_follow_the_machine_and_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "usable_cpus", lambda: [1, 3, 5, 7])
    monkeypatch.setattr(options_module, "cpu_quota", lambda: 1 << 16)
    assert settle_threads(0, False) == (4, None)
    assert settle_threads(9, False) == (9, None)
    assert settle_threads(0, True) == (4, (1, 3, 5, 7))
    assert settle_threads(2, True) == (2, (1, 3))
    assert settle_threads(0, (7, 1)) == (2, (7, 1))
    monkeypatch.setattr(options_module, "cpu_quota", lambda: 2)
    assert settle_threads(0, False) == (2, None)
    with pytest.raises(ValueError, match="names 2 CPUs for 3 threads"):
        settle_threads(3, (7, 1))
    with pytest.raises(ValueError, match="5 threads cannot share 4 CPUs"):
        settle_threads(5, True)


def test_a_quota_is_read_as_whole_cpus(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    for text, cpus in (("150000 100000\n", 1), ("50000 100000", 1), ("400000 100000", 4)):
        file.write_text(text)
        assert cpu_quota(file) == cpus
    file.write_text("max 100000\n")
    assert cpu_quota(file) >= len(usable_cpus())
    assert cpu_quota(tmp_path / "none") >= len(usable_cpus())


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"dtype": "float16"}, Unsupported, "dtype 'float16' is not one of auto, float32, bfloat16"),
        (
            {"quantization": "fp8"},
            Unsupported,
            "native does not offer quantization='fp8'; it offers: int4, int8, w4a8, w8a8",
        ),
        ({"kv_cache_dtype": "fp8"}, Unsupported, "kv_cache_dtype='fp8'; it offers: auto, bfloat16, float32, int8"),
        ({"device": "cuda"}, Unsupported, "on the cpu alone, not on 'cuda'"),
        ({"tensor_parallel_size": 2}, Unsupported, "tensor_parallel_size 2"),
        ({"options": {"spin": "1"}}, ValueError, "unknown option 'spin'"),
        ({"max_num_seqs": 0}, ValueError, "max_num_seqs is 0"),
        ({"num_threads": -1}, ValueError, "num_threads is -1"),
        ({"max_num_logits": 3}, ValueError, "max_num_logits is 3"),
        ({"max_model_len": 1 << 30}, ValueError, "max_model_len is 1073741824"),
        ({"num_blocks": 1 << 40}, ValueError, "do not fit .* free memory.*lower num_blocks"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    models: Models, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    read: list[str] = []
    source = Checkpoint.open(models("llama").path, on_read=lambda name, _: read.append(name))
    with pytest.raises(error, match=says):
        load_on_twins(source, **settings)
    assert not read


def test_heads_that_kernels_cannot_hold_are_refused_before_anything_is_read(models: Models) -> None:
    read: list[str] = []
    source = Checkpoint.open(models("llama").path, on_read=lambda name, _: read.append(name))
    source.spec = replace(source.spec, head_dim=1040)
    with pytest.raises(Unsupported, match="head_dim is 1040, at most 1024"):
        load_on_twins(source)
    assert not read


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be pinned here")
def test_a_pinned_runner_leaves_its_caller_and_the_next_runner_as_they_were(models: Models) -> None:
    mine = os.sched_getaffinity(0)
    first = load(models("llama"), num_threads=0, options={"pin": "on"})
    assert os.sched_getaffinity(0) == {min(mine)}
    assert len(usable_cpus()) == len(mine)
    second = load(models("llama"), num_threads=0, options={"pin": "on"})
    assert second._executor._team.num_threads == first._executor._team.num_threads
    first.close()
    second.close()
    assert os.sched_getaffinity(0) == mine


@pytest.mark.parametrize(("asked", "granted"), [(1, 16), (16, 16), (17, 32), (64, 64), (96, 96), (100, 96)])
def test_blocks_are_whole_pieces_and_no_longer_than_the_context(models: Models, asked: int, granted: int) -> None:
    runner = load_on_twins(models("llama"), block_size=asked)
    assert (runner.info.block_size, runner.info.num_blocks) == (granted, 60)
    runner.close()


def test_a_checkpoint_in_float16_is_computed_in_float32(models: Models) -> None:
    assert load_on_twins(models("qwen3"), dtype="auto").info.dtype == "bfloat16", "its own"
    from isotoken.backends.native.precision import Precision

    from .helpers import settings

    assert Precision.read(settings(dtype="auto"), "float16").dtype == "float32"


@pytest.mark.parametrize(
    ("stored", "is_packed", "quantization", "due"),
    [
        ("float16", True, None, "bfloat16"),
        ("float16", False, "int4", "bfloat16"),
        ("float16", False, "int8", "bfloat16"),
        ("bfloat16", True, None, "bfloat16"),
        ("float16", False, "w4a8", "float32"),
        ("float32", True, None, "float32"),
        ("float32", False, "int4", "float32"),
    ],
)
def test_weights_of_fewer_bits_meet_bfloat16_where_the_model_is_of_16_bits(
    stored: str, is_packed: bool, quantization: str | None, due: str
) -> None:
    from isotoken.backends.native.precision import Precision

    from .helpers import settings

    config = settings(dtype="auto", quantization=quantization)
    assert Precision.read(config, stored, is_packed=is_packed).dtype == due
    asked = settings(dtype="float32", quantization=quantization)
    assert Precision.read(asked, stored, is_packed=is_packed).dtype == "float32"
