"""Weights lie in huge pages where the system has them."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest
from isotoken.backends.onnxruntime import huge_pages as module
from isotoken.backends.onnxruntime.huge_pages import HUGE, anonymous_regions, huge_pages, without

SIZE = 8 * HUGE

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what lies in huge pages")


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def huge_bytes(memory: mmap.mmap) -> int:
    """Bytes in huge pages of the region that `memory` begins in."""
    address, inside = address_of(memory), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address + HUGE < end
        elif inside and first == "AnonHugePages:":
            return int(line.split()[1]) << 10
    raise AssertionError("no such region")


def filled() -> mmap.mmap:
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory.write(b"x" * SIZE)
    return memory


def test_what_is_allocated_meanwhile_lies_in_huge_pages_and_nothing_else() -> None:
    older = filled()
    with huge_pages():
        newer = filled()
        assert not huge_bytes(newer)
    assert newer[:] == older[:] == b"x" * SIZE
    assert not huge_bytes(older)
    if not huge_bytes(newer):
        pytest.skip("this system gives no huge pages now")
    assert huge_bytes(newer) >= SIZE - 2 * HUGE


def test_regions_without_others() -> None:
    assert list(without([(10, 90), (95, 99)], [(0, 12), (20, 30), (40, 95)])) == [(12, 20), (30, 40), (95, 99)]
    assert list(without([(1, 2)], [])) == [(1, 2)]
    assert not list(without([(1, 2)], [(0, 9)]))


def test_regions_are_those_of_no_file() -> None:
    memory = filled()
    regions = anonymous_regions()
    assert any(begin <= address_of(memory) < end for begin, end in regions)
    names = [line.split()[5] for line in Path("/proc/self/maps").read_text().splitlines() if len(line.split()) > 5]
    assert any(name.endswith(".so") or ".so." in name for name in names)  # which are not among them:
    assert len(regions) < len(Path("/proc/self/maps").read_text().splitlines())


def test_a_system_that_tells_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "MAPS", tmp_path / "none")
    with huge_pages():
        memory = filled()
    assert memory[:1] == b"x" and not anonymous_regions()
