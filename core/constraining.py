"""Constraining: the engine's side of grammars. They are compiled off its thread, and masks join each step's draws."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace

import numpy as np

from .batch import SamplingRows, UInt32
from .compilations import Compilation, Compilations
from .constraints import ConstraintError, GrammarCompiler, fill_rows
from .metered import MeteredConstraint
from .types import Request, Scheduled

ALL_ALLOWED = np.uint32(0xFFFFFFFF)
COMPILE_TIMEOUT_S = 30.0
"""For a grammar whose compilation does not end: whoever takes grammars from strangers tries them out beforehand."""

_POLL_S = 0.005  # that an engine with nothing else to do waits for a grammar


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: Request
    compilation: Compilation
    deadline: float  # time.monotonic() seconds


class Constraining:
    """Gives requests their constraints, and draws the masks of these. Without a compiler it refuses grammars."""

    def __init__(self, compiler: GrammarCompiler | None, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        self._compilations = None if compiler is None else Compilations(compiler)
        self._eos_token_ids = eos_token_ids
        self._width = -(-vocab_size // 32)
        self._waiting: dict[str, _Waiting] = {}
        self._failures: list[tuple[Request, str]] = []
        self._buffer: UInt32 = np.empty((0, self._width), np.uint32)
        self._is_used = False

    # --- coming and going -----------------------------------------------------------------------

    @property
    def num_waiting(self) -> int:
        """Requests whose grammars are being compiled."""
        return len(self._waiting)

    def take(self, request: Request) -> bool:
        """Give a request its constraint, if its grammar is compiled already; else False, and `ready` brings it.

        Raises ValueError where there is nobody to read grammars.
        """
        if self._compilations is None:
            raise ValueError("grammar: this engine was built without a grammar compiler")
        if request.id in self._waiting:
            raise ValueError(f"request {request.id!r} is already here")
        assert request.params.grammar is not None
        self._is_used = True
        compilation = self._compilations.start(request.params.grammar)
        entry = _Waiting(request, compilation, time.monotonic() + COMPILE_TIMEOUT_S)
        if compilation.done() and not _outcome(entry, late=False):
            return True
        self._waiting[request.id] = entry
        return False

    def ready(self, *, block: bool) -> list[tuple[Request, str]]:
        """Return the requests that waited and need not any longer, each with what is wrong with its grammar, or "".

        `block`: wait a little if there are none, for there is nothing else to do.
        """
        if block:
            wait([next(iter(self._waiting.values())).compilation], timeout=_POLL_S)
        found = []
        for request_id, entry in list(self._waiting.items()):
            late = time.monotonic() > entry.deadline
            if entry.compilation.done() or late:
                del self._waiting[request_id]
                found.append((entry.request, _outcome(entry, late=late)))
        return found

    def forget(self, request_id: str) -> bool:
        """Let go of a request that waits. False if it does not."""
        return self._waiting.pop(request_id, None) is not None

    def close(self) -> None:
        """End the threads that compile, those that are busy when they are done."""
        if self._compilations is not None:
            self._compilations.close()

    # --- each step ------------------------------------------------------------------------------

    def mask(self, plan: Sequence[Scheduled], rows: SamplingRows) -> SamplingRows:
        """Return the L draws of a plan with the masks of the requests' grammars. `take_failures` tells which failed."""
        self._failures = []
        if not self._is_used or all(share.request.constraint is None for share in plan):
            return rows
        masks = self._fresh(len(rows))
        end = 0
        for share in plan:
            row, end = end, end + share.num_logits
            if share.request.constraint is not None and share.request.finish_reason is None:
                self._fill(share, masks[row:end])
        return replace(rows, mask=masks if rows.mask is None else masks & rows.mask)

    def take_failures(self) -> list[tuple[Request, str]]:
        """Return the requests whose masks could not be made since this was last asked, and why."""
        failures, self._failures = self._failures, []
        return failures

    def _fresh(self, num_rows: int) -> UInt32:
        """Masks [num_rows, W] that allow everything, in the memory of the step before."""
        if len(self._buffer) < num_rows:
            self._buffer = np.empty((num_rows, self._width), np.uint32)
        masks = self._buffer[:num_rows]
        masks.fill(ALL_ALLOWED)
        return masks

    def _fill(self, share: Scheduled, masks: UInt32) -> None:
        """Write the masks of a request's logits rows [n, W]; those that score its prompt are left as they are."""
        request = share.request
        assert request.constraint is not None
        num_known_drafts = share.start + share.num_tokens - len(request.token_ids) + 1  # plus 1
        num_draws = min(share.num_logits, num_known_drafts)
        if num_draws <= 0:
            return
        own = masks[share.num_logits - num_draws :]
        try:
            fill_rows(request.constraint, request.draft_ids, own, num_known_drafts - num_draws)
        except ConstraintError as error:
            self._failures.append((request, f"its grammar cannot be followed any further: {error}"))
        if request.params.ignore_eos:
            for token in self._eos_token_ids - request.end_token_ids:
                own[:, token >> 5] &= ~np.uint32(1 << (token & 31))


def _outcome(entry: _Waiting, *, late: bool) -> str:
    """Give a request its constraint; return what is wrong with its grammar, or ""."""
    if not entry.compilation.done() and late:
        return f"the grammar took longer than {COMPILE_TIMEOUT_S:.0f} s to compile"
    try:
        _constrain(entry.request, entry.compilation)
    except ValueError as error:
        return str(error)
    return ""


def _constrain(request: Request, compilation: Compilation) -> None:
    """Give a request its constraint, at where its output is: it may have begun in an engine that died. ValueError."""
    constraint = MeteredConstraint(compilation.result()())
    output = request.token_ids[request.num_prompt_tokens :]
    if constraint.advance(output) < len(output):
        raise ValueError("grammar: the output so far does not follow it")
    request.constraint = constraint
