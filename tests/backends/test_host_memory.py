from __future__ import annotations

from pathlib import Path

from isotoken.backends.host_memory import available_bytes


def test_files_in_a_containers_memory_make_room(tmp_path: Path) -> None:
    """Whoever has read a checkpoint has filled its memory with the file's pages, which the system takes back."""
    for name, text in (("max", "5000000"), ("current", "4900000"), ("stat", "anon 100\ninactive_file 4000000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert available_bytes(tmp_path) == 5_000_000 - 900_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path) > 5_000_000
