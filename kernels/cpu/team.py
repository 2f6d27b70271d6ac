"""A team of threads that runs programs and packs weights."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .packing import packed_sizes
from .program import FORM_BF16, FORM_F16, FORM_F32, MAX_HEAD_DIM, Operation, Program, Step, Weights

MATRIX_FORMS = {
    np.dtype(np.float32): FORM_F32,
    np.dtype(ml_dtypes.bfloat16): FORM_BF16,
    np.dtype(np.float16): FORM_F16,
}
DEFAULT_SPIN_US = 200
NO_MEMORY, UNKNOWN, NO_THREADS = -1, -2, -3  # Status of csrc/program.h

Array = NDArray[Any]


class Team:
    """Threads of the caller's and others beside it. One thread at a time may use a team; `close` ends its threads."""

    def __init__(
        self,
        functions: ctypes.CDLL,
        num_threads: int,
        cpus: Sequence[int] | None = None,
        spin_us: int = DEFAULT_SPIN_US,
        *,
        isa: int = 0,
    ) -> None:
        """Start the threads. `isa` counts as isotoken_isa_name does. The caller is the first of them: pinned like the
        others where `cpus` are named, until it has closed the last of its teams.

        Raises ValueError where threads and CPUs are not as many, OSError where threads cannot be started.
        """
        if cpus is not None and len(cpus) != num_threads:
            raise ValueError(f"{num_threads} threads are to be pinned to {len(cpus)} processors: name one for each")
        self.num_threads = num_threads
        self._functions = functions
        pinned = None if cpus is None else (ctypes.c_int32 * num_threads)(*cpus)
        ctypes.set_errno(0)
        self._handle: int | None = self._functions.isotoken_team_start(isa, num_threads, pinned, spin_us)
        if self._handle is None:
            raise OSError(f"{num_threads} threads cannot be started: {os.strerror(ctypes.get_errno())}")

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """Return a program that runs on this team when called with a step."""
        return Prepared(self, Program(list(operations)))

    def profile(self, on: bool, num_operations: int = 0) -> list[float]:
        """Turn profiling on or off; return the seconds of each operation since the last call, summed over steps."""
        seconds = (ctypes.c_double * num_operations)()
        self._functions.isotoken_profile(self.handle, on, seconds, num_operations)
        return list(seconds)

    def pack(
        self,
        form: int,
        matrix: Array,
        group: int,
        values: Array,
        scales: Array | None = None,
        sums: Array | None = None,
    ) -> None:
        """Do what twins.pack.pack does."""
        matrix_form = MATRIX_FORMS[matrix.dtype]
        row_bytes, item = matrix.strides
        if item != matrix.itemsize or row_bytes % item:
            raise ValueError("the elements of a row lie apart")
        packed = _weights(form, matrix.shape, group, values, scales, sums)
        ld = row_bytes // item
        status = self._functions.isotoken_pack(
            self.handle, matrix.ctypes.data, matrix_form, ld, None, ctypes.addressof(packed)
        )
        check_status(status)

    def pack_quantised(
        self,
        form: int,
        integers: NDArray[np.int8],
        float_scales: Array,
        group: int,
        values: Array,
        scales: Array | None = None,
        sums: Array | None = None,
    ) -> None:
        """Do what twins.pack.pack_quantised does."""
        integers, wide = np.ascontiguousarray(integers), np.ascontiguousarray(float_scales, np.float32)
        packed = _weights(form, integers.shape, group, values, scales, sums)
        status = self._functions.isotoken_pack_quantised(
            self.handle, integers.ctypes.data, integers.shape[1], wide.ctypes.data, None, ctypes.addressof(packed)
        )
        check_status(status)

    @property
    def handle(self) -> int:
        """Where the team lies in C. ValueError once it is closed."""
        if self._handle is None:
            raise ValueError("the team is closed")
        return self._handle

    def close(self) -> None:
        """End the threads; twice does nothing."""
        if self._handle is not None:
            self._functions.isotoken_team_destroy(self._handle)
            self._handle = None

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


class Prepared:
    """A program as C takes it: a call runs it for a step, and returns when it is done."""

    def __init__(self, team: Team, program: Program) -> None:
        self.program = program
        self._team = team
        self._run = team._functions.isotoken_run
        self._arguments = (ctypes.addressof(program.pointers), len(program))

    def __call__(self, step: Step) -> None:
        """Run every operation. Raises what `check_status` does."""
        check_status(self._run(self._team.handle, *self._arguments, ctypes.addressof(step)))

    def profile(self, on: bool) -> list[float]:
        """Turn profiling on or off; return the seconds of each operation since the last call."""
        return self._team.profile(on, len(self.program))


def _weights(
    form: int, shape: tuple[int, ...], group: int, values: Array, scales: Array | None, sums: Array | None
) -> Weights:
    """Return packed weights to be, once their memory is known to be as large as they are."""
    outputs, inputs = shape
    given = tuple(0 if part is None else part.nbytes for part in (values, scales, sums))
    sizes = packed_sizes(form, outputs, inputs, group)
    if given != sizes:
        raise ValueError(f"memory for packed weights [{outputs}, {inputs}] has {given} bytes, needed are {sizes}")
    return Weights(values=values, scales=scales, sums=sums, form=form, outputs=outputs, inputs=inputs, group=group)


def check_status(status: int) -> None:
    """Raise MemoryError where scratch memory ran out, OSError where a fork gets no threads, ValueError for operations
    that the kernels do not have."""
    if status == NO_MEMORY:
        raise MemoryError("scratch memory of the CPU kernels ran out")
    if status == NO_THREADS:
        raise OSError(f"the team's threads cannot be started in this fork: {os.strerror(ctypes.get_errno())}")
    if status:
        raise ValueError(f"the CPU kernels have no such operation or form, or not at a head_dim above {MAX_HEAD_DIM}")
