"""The compiled CPU kernels: found beside this file, loaded when asked for, checked against program.py."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import c_char_p, c_double, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from .program import NUMBERS
from .team import DEFAULT_SPIN_US, Team

ISA_VARIABLE = "ISOTOKEN_CPU_ISA"
PATH = Path(__file__).parent / "_native.so"

SIGNATURES: dict[str, tuple[object, Sequence[object]]] = {
    "isotoken_team_start": (c_void_p, (c_int32, c_int32, c_void_p, c_int32)),
    "isotoken_team_destroy": (None, (c_void_p,)),
    "isotoken_run": (c_int32, (c_void_p, c_void_p, c_int32, c_void_p)),
    "isotoken_profile": (None, (c_void_p, c_int32, ctypes.POINTER(c_double), c_int32)),
    "isotoken_pack": (c_int32, (c_void_p, c_void_p, c_int32, c_int64, c_void_p, c_void_p)),
    "isotoken_pack_quantised": (c_int32, (c_void_p, c_void_p, c_int64, c_void_p, c_void_p, c_void_p)),
    "isotoken_num_isas": (c_int32, ()),
    "isotoken_isa_name": (c_char_p, (c_int32,)),
    "isotoken_isa_runs": (c_int32, (c_int32,)),
    "isotoken_sizeof": (c_int32, (c_int32,)),
}


class LibraryError(ImportError):
    """The CPU kernels cannot run here; the message says why and what to do."""


class Library:
    """The loaded kernels, and the instruction set that teams started from here run."""

    def __init__(self, functions: ctypes.CDLL, isa: str = "") -> None:
        """Choose a set, "" being the best. ValueError where it is not built or does not run here."""
        self.functions = functions
        indices = range(functions.isotoken_num_isas())
        self._indices = {functions.isotoken_isa_name(index).decode(): index for index in indices}
        self.built = tuple(self._indices)  # instruction sets, best first
        self.isas = tuple(isa for isa, index in self._indices.items() if functions.isotoken_isa_runs(index))
        self.isa = isa or self.isas[0]
        if self.isa not in self.isas:
            why = "this machine does not run it" if isa in self.built else "it is not built"
            raise ValueError(f"instruction set {isa!r}: {why}; here are: {', '.join(self.isas)}")

    def team(self, num_threads: int, cpus: Sequence[int] | None = None, spin_us: int = DEFAULT_SPIN_US) -> Team:
        """Start a team of threads."""
        return Team(self.functions, num_threads, cpus, spin_us, isa=self._indices[self.isa])


def load(isa: str = "") -> Library:
    """Load the kernels and choose an instruction set: `isa`, else what ISOTOKEN_CPU_ISA names, else the best.

    Raises LibraryError where the library is not built or does not fit, ValueError for an unknown set.
    """
    return Library(_load(), isa or os.environ.get(ISA_VARIABLE, ""))


def why_unavailable() -> str:
    """Return why the kernels cannot be loaded, "" if they can."""
    try:
        _load()
    except LibraryError as error:
        return str(error)
    return ""


@cache
def _load() -> ctypes.CDLL:
    if not PATH.exists():
        raise LibraryError(
            "the CPU kernels are not built: isotoken was installed where no C++ compiler was found. "
            "Install g++ or clang++, then in isotoken's folder: pip install --force-reinstall --no-deps . "
            "(with --editable where it was). Or take another engine: pip install '.[onnxruntime]'"
        )
    try:
        functions = ctypes.CDLL(str(PATH), use_errno=True)
    except OSError as error:
        raise LibraryError(f"the CPU kernels cannot be loaded: {error}") from error
    _declare(functions)
    return functions


def _declare(functions: ctypes.CDLL) -> None:
    """Type the functions, and see that library and mirror speak of the same structs."""
    try:
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(functions, name)
            function.restype, function.argtypes = result, list(arguments)
    except AttributeError as error:
        raise LibraryError(f"{PATH.name} is of another version of isotoken ({error}): build it anew") from error
    for structure, number in NUMBERS.items():
        size = functions.isotoken_sizeof(number)
        if size != ctypes.sizeof(structure):
            raise LibraryError(
                f"{PATH.name} is of another version of isotoken: {structure.__name__} has {size} bytes there and "
                f"{ctypes.sizeof(structure)} here; build it anew"
            )
