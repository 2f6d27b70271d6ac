"""The journal: what was appended is there after a crash, and what a crash tore is passed over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from isotoken.api.ledger.entry import from_line, plain, to_line
from isotoken.api.ledger.journal import Journal, taken
from isotoken.api.ledger.segments import Cursor, Place, Segments
from isotoken.api.store import StoreError

from .conftest import Make


def numbers(folder: Path, place: Place | None = None) -> list[int]:
    return [entry.number for entry in Cursor(Segments(folder), place).read(10**6)]


def test_an_entry_comes_back_as_it_was(make: Make) -> None:
    entry = make(cost=10**15 + 1, request_id='"quoted" 日本 \\', finish_reason="stop", seconds=0.25)("j", 3)
    assert from_line(to_line(entry)) == entry


def test_a_damaged_line_is_known(make: Make) -> None:
    line = to_line(make()("j", 1))
    for place in range(len(line) - 1):
        damaged = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        with pytest.raises(ValueError, match=r"."):
            from_line(damaged)


def test_names_are_made_fit_for_every_database() -> None:
    assert plain("a\x00b\ncd\u202e") == "abcd"
    assert len(plain("x" * 1000)) == 128


def test_entries_are_read_in_order_over_many_files(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path / "j", segment_bytes=500)
    cursor = Cursor(journal.segments)
    read = []
    for _ in range(50):
        journal.append(make())
        read += [entry.number for entry in cursor.read(3)]
    assert read == list(range(1, 51))
    assert len(journal.segments.indices()) > 10
    assert numbers(tmp_path / "j") == read
    journal.close()


def test_a_reader_beside_the_writer_misses_nothing(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path / "j", segment_bytes=2000)
    cursor, read = Cursor(journal.segments), []
    is_done = threading.Event()

    def follow() -> None:
        while True:
            was_done = is_done.is_set()
            found = cursor.read(7)
            read.extend(entry.number for entry in found)
            if was_done and not found:
                return

    reader = threading.Thread(target=follow)
    reader.start()
    for _ in range(2000):
        journal.append(make())
    is_done.set()
    reader.join(60)
    journal.close()
    assert read == list(range(1, 2001))


def test_every_start_has_a_name_and_a_file_of_its_own(tmp_path: Path, make: Make) -> None:
    first = Journal(tmp_path / "j")
    first.append(make())
    first.close()
    second = Journal(tmp_path / "j")
    second.append(make())
    second.close()
    found = Cursor(Segments(tmp_path / "j")).read(10)
    assert len({entry.id for entry in found}) == 2 and len({entry.journal for entry in found}) == 2


def test_what_a_power_cut_tore_is_passed_over(tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "j")
    for _ in range(3):
        journal.append(make())
    journal.close()
    path = journal.segments.path(1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00" * len(lines[1][:-1]) + b"\n" + lines[2][:-9])
    again = Journal(tmp_path / "j")
    again.append(make(request_id="after"))
    found = Cursor(again.segments).read(10)
    assert [entry.request_id for entry in found] == ["r", "after"]
    assert "is damaged" in caplog.text
    again.close()


def test_a_place_is_kept_and_forgotten(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path / "j")
    for _ in range(4):
        journal.append(make())
    cursor = Cursor(journal.segments)
    cursor.read(2)
    journal.segments.save_place("database", cursor.place)
    assert numbers(tmp_path / "j", journal.segments.load_place("database")) == [3, 4]
    journal.segments.forget_places()
    assert numbers(tmp_path / "j", journal.segments.load_place("database")) == [1, 2, 3, 4]
    journal.close()


def test_a_place_in_files_that_are_gone_hides_no_new_ones(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(make())
    journal.segments.save_place("database", Place(7, 0))  # of seven files that somebody has removed
    assert numbers(tmp_path / "j", journal.segments.load_place("database")) == [1]
    journal.close()


def test_two_servers_never_share_a_folder(journal: Journal) -> None:
    with pytest.raises(StoreError, match=r"ledger\.folder of its own"):
        Journal(journal.folder)
    with pytest.raises(StoreError, match="another server"), taken(journal.folder):
        pass


KILLED = """
import os, sys, time
from pathlib import Path
from isotoken.api.ledger.entry import UsageEntry
from isotoken.api.ledger.journal import Journal
journal = Journal(Path(sys.argv[1]))
for _ in range(1000):
    journal.append(lambda j, n: UsageEntry(journal=j, number=n, request_id="r", tenant="t", ended=time.time()))
print("written", flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_killed_process_has_lost_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "j")], capture_output=True, check=False)
    assert done.stdout == b"written\n" and done.returncode == -9
    assert numbers(tmp_path / "j") == list(range(1, 1001))
    Journal(tmp_path / "j").close()  # and its folder is free


def test_a_full_disk_keeps_entries_in_memory_until_there_is_room(small_disk: Path, make: Make) -> None:
    journal = Journal(small_disk / "j")
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file, pytest.raises(OSError, match="No space"):
        while True:
            os.write(file.fileno(), bytes(512))
    while not journal.error:
        journal.append(make(request_id="x" * 100))
    for _ in range(10):
        journal.append(make())
    total = journal.last_number
    assert "No space" in journal.error and len(journal.unwritten) == 11
    journal.sync()
    assert journal.error, "the disk is still full"
    assert [e.number for e in journal.waiting(journal.written_number, 100)] == list(range(total - 10, total + 1))
    assert journal.waiting(journal.written_number - 1, 100) == [], "files come first"
    ballast.unlink()
    journal.sync()
    assert not journal.error and not journal.unwritten
    assert numbers(small_disk / "j") == list(range(1, total + 1))
    journal.close()


def test_what_memory_may_hold_is_bounded(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path / "j", max_unwritten=5)
    journal.error = "pretend that the disk is full"
    for _ in range(5):
        journal.append(make())
    assert journal.is_full and journal.num_dropped == 0
    journal.append(make())
    assert journal.num_dropped == 1 and len(journal.unwritten) == 5
    journal.close()


def test_old_files_go_once_they_are_delivered(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path / "j", segment_bytes=1)
    for _ in range(5):
        journal.append(make())
    for index in (1, 2, 3):
        os.utime(journal.segments.path(index), (0, 0))
    assert journal.segments.remove_before(3, older_than_s=3600) == 2
    assert journal.segments.indices() == [3, 4, 5]
    journal.close()
