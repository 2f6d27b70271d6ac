"""What runs programs and packs weights: the compiled kernels. Nothing else stands in for them when they are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...core.interfaces import Sampler
from ...core.types import Unsupported
from ...kernels.cpu import library
from ...kernels.cpu.program import Operation, Step
from .memory import Array
from .options import Options
from .sampler import NativeSampler

Prepared = Callable[[Step], None]
"""A program, ready to be run for a step."""


class Executor(Protocol):
    """Runs the operations of kernels/cpu with a number of threads."""

    isa: str  # the instruction set in use

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """Return a program that can be run again and again. Holds on to the operations."""
        ...

    def pack(
        self, form: int, matrix: Array, group: int, values: Array, scales: Array | None, sums: Array | None
    ) -> None:
        """Pack rows of a matrix [n, inputs], any float dtype, into memory of `packed_sizes` bytes."""
        ...

    def pack_quantised(
        self,
        form: int,
        integers: Array,
        float_scales: Array,
        group: int,
        values: Array,
        scales: Array | None,
        sums: Array | None,
    ) -> None:
        """Pack rows of integers [n, inputs] int8, with their scales [n, groups], likewise."""
        ...

    def sampler(self) -> Sampler:
        """Return a sampler of the same threads."""
        ...

    def close(self) -> None:
        """End the threads. Twice is harmless."""
        ...


OpenExecutor = Callable[[Options, int, "Sequence[int] | None"], Executor]
"""Given the options, the number of threads and the CPU of each (None: not pinned)."""


PLAIN = "plain"  # the instruction set that every CPU runs


def check_library() -> None:
    """Raise Unsupported, saying what is missing, where the kernels cannot be loaded."""
    if why := library.why_unavailable():
        raise Unsupported(f"backend native: {why}")


def shortcoming() -> str:
    """Say why the kernels are slow on this machine, "" where they are not."""
    try:
        isas = library.load(PLAIN).isas
    except (library.LibraryError, ValueError):
        return ""
    if isas != (PLAIN,):
        return ""
    return "this CPU runs only the plain C++ kernels, without vector instructions of their own, which are slow"


class Library:
    """The compiled kernels with a team of threads of their own."""

    def __init__(self, options: Options, num_threads: int, cpus: Sequence[int] | None) -> None:
        """Load and start. Raises Unsupported where there are no kernels, ValueError where an option names no such."""
        try:
            kernels = library.load(options.isa)
        except library.LibraryError as error:
            raise Unsupported(f"backend native: {error}") from error
        except ValueError as error:
            raise ValueError(f"backend native: {error}") from error
        self.isa = kernels.isa
        try:
            self._team = kernels.team(num_threads, cpus, options.spin_us)
        except OSError as error:
            raise ValueError(f"backend native: num_threads is {num_threads}: {error}") from error

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """Lay out the array of pointers that every step hands over."""
        return self._team.prepare(operations)

    def pack(
        self, form: int, matrix: Array, group: int, values: Array, scales: Array | None, sums: Array | None
    ) -> None:
        """Pack with all threads."""
        self._team.pack(form, matrix, group, values, scales, sums)

    def pack_quantised(
        self,
        form: int,
        integers: Array,
        float_scales: Array,
        group: int,
        values: Array,
        scales: Array | None,
        sums: Array | None,
    ) -> None:
        """Pack with all threads."""
        self._team.pack_quantised(form, integers, float_scales, group, values, scales, sums)

    def sampler(self) -> Sampler:
        """Return the sampler in C++."""
        return NativeSampler(self._team)

    def close(self) -> None:
        """End the threads."""
        self._team.close()
