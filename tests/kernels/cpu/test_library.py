"""The compiled library: built where there is a compiler, chosen by instruction set, refused where it does not fit."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest
from isotoken.kernels.cpu import library
from isotoken.kernels.cpu import program as p


def test_it_is_built_where_there_is_a_compiler() -> None:
    if not (shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler here")
    assert library.why_unavailable() == ""


def test_plain_is_always_there_and_last() -> None:
    kernels = library.load()
    assert kernels.built[-1] == kernels.isas[-1] == "plain"
    assert set(kernels.isas) <= set(kernels.built)


def test_the_instruction_set_is_chosen_by_name_or_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ISA_VARIABLE, "plain")
    assert library.load().isa == "plain"
    best = library.load().isas[0]
    assert library.load(best).isa == best, "a name goes first"
    monkeypatch.delenv(library.ISA_VARIABLE)
    assert library.load().isa == best
    with pytest.raises(ValueError, match=r"'sse9'.*not built.*plain"):
        library.load("sse9")


def test_structs_are_as_large_here_as_there() -> None:
    functions = library.load().functions
    for structure, number in p.NUMBERS.items():
        assert functions.isotoken_sizeof(number) == ctypes.sizeof(structure), structure.__name__
    assert functions.isotoken_sizeof(99) == -1


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the library is looked for instead."""
    path = tmp_path / "_native.so"
    monkeypatch.setattr(library, "PATH", path)
    monkeypatch.setattr(library, "_load", library._load.__wrapped__)
    return path


def test_without_the_library_the_reason_and_the_remedy_are_told(elsewhere: Path) -> None:
    assert "not built" in library.why_unavailable()
    assert "pip install" in library.why_unavailable()
    with pytest.raises(library.LibraryError, match=r"C\+\+ compiler"):
        library.load()


def test_a_file_that_is_no_library_is_told_apart(elsewhere: Path) -> None:
    elsewhere.write_bytes(b"no library")
    assert "cannot be loaded" in library.why_unavailable()


def test_a_library_of_another_version_is_refused(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(library.__file__).parent / "_native.so", elsewhere)
    assert library.why_unavailable() == ""
    monkeypatch.setattr(library, "NUMBERS", {p.Step: p.NUMBERS[p.Embed]})
    assert "another version" in library.why_unavailable()


def test_an_unknown_field_of_an_operation_is_refused() -> None:
    with pytest.raises(TypeError, match="Norm has no field wieght"):
        p.Norm(wieght=0)
