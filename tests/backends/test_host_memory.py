from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isotoken.backends.host_memory import available_bytes, byte_bounds, release_pages


def test_files_in_a_containers_memory_make_room(tmp_path: Path) -> None:
    """Whoever has read a checkpoint has filled its memory with the file's pages, which the system takes back."""
    for name, text in (("max", "5000000"), ("current", "4900000"), ("stat", "anon 100\ninactive_file 4000000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert available_bytes(tmp_path) == 5_000_000 - 900_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path) > 5_000_000


WHOLE = np.zeros((6, 8), np.float32)


@pytest.mark.parametrize(
    ("array", "due"),
    [
        (WHOLE, (0, 192)),
        (WHOLE[2:4], (64, 128)),
        (WHOLE.T[1:3], (4, 172)),
        (WHOLE[::-1, 3:5], (12, 180)),
        (WHOLE[1:2, 2:3].reshape(()), (40, 44)),
    ],
    ids=["whole", "rows", "columns", "backwards", "number"],
)
def test_where_an_arrays_bytes_begin_and_end(array: Any, due: tuple[int, int]) -> None:
    """Views in any order: nothing outside of them may be touched."""
    base = WHOLE.ctypes.data
    assert byte_bounds(array) == (base + due[0], base + due[1])
    low, high = byte_bounds(array[..., :0] if array.ndim else array[None][:0])
    assert low == high, "nothing has no bytes"


def test_released_pages_of_a_file_are_read_anew(tmp_path: Path) -> None:
    """Whole pages within the array alone; what was written beside it in a private mapping stays."""
    page = 4096
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * page))
    mapped = np.memmap(path, np.uint8, "c")
    mapped[:] = 1
    release_pages(mapped[page + 1 : 3 * page + 1])
    assert (mapped[: 2 * page] == 1).all()
    assert not mapped[2 * page : 3 * page].any()
    assert (mapped[3 * page :] == 1).all()
