"""Sampling in C++: the face of csrc/sample.h, for rows of parameters as core.batch.SamplingRows holds them."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .library import LibraryError
from .team import Team, check_status

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Array = NDArray[Any]
Address = ctypes.c_void_p

NO_LOGPROBS, WHOLE_VOCABULARY = -2, -1
SAMPLE_ARGS = 105  # what isotoken_sizeof calls them

Rows = Any
"""A core.batch.SamplingRows, of which kernels know the fields alone: L rows, V tokens."""


class Drawn(NamedTuple):
    """The fields of core.batch.Sampled."""

    token_ids: Int32  # [L]
    logprobs: Float32 | None = None  # [L]
    ranks: Int32 | None = None  # [L]
    top_ids: Int32 | None = None  # [L, K]
    top_logprobs: Float32 | None = None  # [L, K]


class SampleArgs(ctypes.Structure):
    """SampleArgs of csrc/sample.h."""

    _fields_ = [
        ("logits", Address),
        ("ld", ctypes.c_int64),
        ("num_rows", ctypes.c_int32),
        ("vocab_size", ctypes.c_int32),
        *((name, Address) for name in ("temperature", "top_k", "top_p", "min_p", "seeds", "positions", "target_ids")),
        ("num_logprobs", Address),
        *((f"{kind}_{part}", Address) for kind in ("penalty", "bias") for part in ("rows", "ids", "values")),
        ("mask", Address),
        ("num_penalties", ctypes.c_int32),
        ("num_biases", ctypes.c_int32),
        *((name, Address) for name in ("token_ids", "logprobs", "ranks", "top_ids", "top_logprobs")),
        ("num_top", ctypes.c_int64),
        ("scratch", Address),
    ]


FIELDS = {
    "temperature": np.float32,
    "top_k": np.int32,
    "top_p": np.float32,
    "min_p": np.float32,
    "seeds": np.uint64,
    "positions": np.int64,
    "target_ids": np.int32,
    "num_logprobs": np.int32,
}


class TeamSampler:
    """Draws with a team of threads. For one caller at a time; never writes to the logits.

    Keeps scratch memory, and memory that parameters are copied to: asking numpy for an address takes longer than that.
    Raises LibraryError where the library is of another version.
    """

    def __init__(self, team: Team) -> None:
        if team._functions.isotoken_sizeof(SAMPLE_ARGS) != ctypes.sizeof(SampleArgs):
            raise LibraryError("the compiled sampler is of another version of isotoken: build the CPU kernels anew")
        self._sample = team._functions.isotoken_sample
        self._sample.argtypes, self._sample.restype = [Address, Address], ctypes.c_int32
        self._scratch_bytes = team._functions.isotoken_sample_scratch
        self._scratch_bytes.argtypes, self._scratch_bytes.restype = [ctypes.c_int32, ctypes.c_int32], ctypes.c_int64
        self._team = team
        self._args = SampleArgs()
        self._address = ctypes.addressof(self._args)
        self._scratch = np.empty(0, np.uint8)
        self._rows: dict[str, Array] = {}

    def sample(self, logits: Any, rows: Rows) -> Drawn:
        """Draw (or score) one token for each row of logits [L, V].

        A float32 array whose rows may lie apart is read where it is, anything else through np.asarray.
        """
        x = _readable(logits)
        num_rows, vocab_size = x.shape
        args = self._args
        self._reserve(num_rows, vocab_size)
        args.logits, args.ld, args.num_rows = x.ctypes.data, x.strides[0] // 4, num_rows
        for name in FIELDS:
            self._rows[name][:num_rows] = getattr(rows, name)
        kept = _enter_edits(args, rows)
        drawn = _enter_logprobs(args, rows.num_logprobs, num_rows, vocab_size)
        check_status(self._sample(self._team.handle, self._address))
        del kept, x  # only now
        return Drawn(self._rows["token_ids"][:num_rows].copy(), *drawn)

    def _reserve(self, num_rows: int, vocab_size: int) -> None:
        if num_rows > len(self._rows.get("token_ids", ())):
            for name, dtype in {**FIELDS, "token_ids": np.int32}.items():
                self._rows[name] = np.empty(num_rows, dtype)
                setattr(self._args, name, self._rows[name].ctypes.data)
        if vocab_size != self._args.vocab_size:
            self._args.vocab_size = vocab_size
            self._scratch = np.empty(self._scratch_bytes(self._team.num_threads, vocab_size) + 64, np.uint8)
            self._args.scratch = -(-self._scratch.ctypes.data // 64) * 64  # where a cache line begins


def _readable(logits: Any) -> Float32:
    """Logits [L, V] as float32, the numbers of a row side by side."""
    x: Float32 = np.asarray(logits, np.float32)
    if x.strides[1] != x.itemsize or x.strides[0] % x.itemsize:
        x = np.ascontiguousarray(x)
    return x


def _enter_edits(args: SampleArgs, rows: Rows) -> list[Array]:
    """Enter penalties, biases and mask; what is returned must live as long as they are read."""
    args.num_penalties, args.num_biases, args.mask = len(rows.penalty_rows), len(rows.bias_rows), None
    arrays: dict[str, Array] = {}
    if args.num_penalties:
        arrays |= _by_row("penalty", rows.penalty_rows, rows.penalty_ids, rows.penalty_values)
    if args.num_biases:
        arrays |= _by_row("bias", rows.bias_rows, rows.bias_ids, rows.bias_values)
    if rows.mask is not None:
        arrays["mask"] = np.ascontiguousarray(rows.mask, np.uint32)
    for name, array in arrays.items():
        setattr(args, name, array.ctypes.data)
    return list(arrays.values())


def _by_row(kind: str, rows: Int32, ids: Int32, values: Float32) -> dict[str, Array]:
    """Name (row, id, value) triples as SampleArgs does, in order of their rows."""
    if (rows[1:] < rows[:-1]).any():
        order = np.argsort(rows, kind="stable")
        rows, ids, values = rows[order], ids[order], values[order]
    return {
        f"{kind}_rows": np.ascontiguousarray(rows, np.int32),
        f"{kind}_ids": np.ascontiguousarray(ids, np.int32),
        f"{kind}_values": np.ascontiguousarray(values, np.float32),
    }


def _enter_logprobs(args: SampleArgs, num_logprobs: Int32, num_rows: int, vocab_size: int) -> tuple[Array, ...]:
    """Make memory for log-probabilities where rows ask for them; zeros where one asks for fewer than another."""
    asked = num_logprobs.tolist()
    if max(asked, default=NO_LOGPROBS) == NO_LOGPROBS:
        args.logprobs = args.ranks = args.top_ids = args.top_logprobs = None  # the last call's memory may be gone
        args.num_top = 0
        return ()
    args.num_top = vocab_size if WHOLE_VOCABULARY in asked else min(max(asked), vocab_size)
    arrays = {
        "logprobs": np.zeros(num_rows, np.float32),
        "ranks": np.zeros(num_rows, np.int32),
        "top_ids": np.zeros((num_rows, args.num_top), np.int32),
        "top_logprobs": np.zeros((num_rows, args.num_top), np.float32),
    }
    for name, array in arrays.items():
        setattr(args, name, array.ctypes.data)
    return tuple(arrays.values())
