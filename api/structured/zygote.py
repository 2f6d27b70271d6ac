"""The process that tries out grammars: for each it forks a child, which may be killed, and tells what became of it.

Started as `python -m isotoken.api.structured.zygote`, with frames of msgpack on standard input and output: a Setup,
then Trials in, Verdicts out. A fork costs a few milliseconds and has the library and the vocabulary ready; a grammar
that takes too long, too much memory or the whole stack takes nothing down but its child.
"""

from __future__ import annotations

import os
import random
import resource
import selectors
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from ...core.batch import UInt32
from ...core.constraints import Constraint, ConstraintError, GrammarCompiler
from ...plugins.grammars import GrammarContext
from ...plugins.manager import Plugins
from ..text import TextModel
from .tokens import token_table
from .trials import Setup, Trial, Verdict, pack, read_frame

MAX_CHILDREN = 8  # the system shares its time among them: what is quick to compile does not wait for what is not
_OK = b"ok"
_NICENESS = 10
WALK_TOKENS, WALK_EACH_S = 48, 0.004


@dataclass(slots=True)
class _Child:
    trial: Trial
    pid: int
    deadline: float  # time.monotonic() seconds
    answer: bytes = b""
    late: bool = False


@dataclass(slots=True)
class Zygote:
    """Tries out one grammar after the other, some at a time."""

    setup: Setup
    compiler: GrammarCompiler
    source: IO[bytes]
    sink: IO[bytes]
    waiting: deque[Trial] = field(default_factory=deque)
    children: dict[int, _Child] = field(default_factory=dict)  # by the descriptor that each answers on
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> None:
        """Serve until the other side is gone."""
        self.selector.register(self.source, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select(self._patience()):
                if key.fileobj is self.source:
                    frame = read_frame(self.source)
                    if frame is None:
                        return
                    self.waiting.append(msgspec.msgpack.decode(frame, type=Trial))
                else:
                    self._hear(key.fd)
            self._kill_late()
            while self.waiting and len(self.children) < MAX_CHILDREN:
                self._start(self.waiting.popleft())

    def _patience(self) -> float | None:
        """Seconds until some child is late."""
        deadlines = [child.deadline for child in self.children.values()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _start(self, trial: Trial) -> None:
        mine, its = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(mine)
            _child(self.setup, self.compiler, trial, its)
        os.close(its)
        self.children[mine] = _Child(trial, pid, time.monotonic() + self.setup.timeout_s)
        self.selector.register(mine, selectors.EVENT_READ)

    def _hear(self, descriptor: int) -> None:
        """Take what a child says; once it says no more, tell its verdict."""
        child = self.children[descriptor]
        if piece := os.read(descriptor, 65536):
            child.answer += piece
            return
        self.selector.unregister(descriptor)
        os.close(descriptor)
        del self.children[descriptor]
        _, status = os.waitpid(child.pid, 0)
        verdict = self._verdict(child, status)
        self.sink.write(pack(verdict))
        self.sink.flush()

    def _verdict(self, child: _Child, status: int) -> Verdict:
        if child.late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
            return Verdict(
                child.trial.id, f"it takes longer than {self.setup.cpu_s} s to compile", final=not child.late
            )
        if os.WIFSIGNALED(status) or not child.answer:
            return Verdict(child.trial.id, "it takes too much memory, or nests too deeply, to be compiled")
        if child.answer == _OK:
            return Verdict(child.trial.id)
        return Verdict(child.trial.id, child.answer.decode("utf-8", "replace"))

    def _kill_late(self) -> None:
        now = time.monotonic()
        for child in self.children.values():
            if child.deadline <= now and not child.late:
                child.late = True
                os.kill(child.pid, signal.SIGKILL)


def _child(setup: Setup, compiler: GrammarCompiler, trial: Trial, descriptor: int) -> None:
    """Try out a grammar and end."""
    try:
        _limit(setup)
        answer = _try(compiler, trial.grammar, setup.vocab_size)
    except MemoryError:
        os._exit(1)
    except BaseException as error:  # whatever it is, the verdict is about this grammar
        answer = f"{type(error).__name__}: {error}".encode()
    os.write(descriptor, answer[:4096] or b"?")
    os._exit(0)


def _limit(setup: Setup) -> None:
    os.nice(_NICENESS)
    now = int(sum(os.times()[:2]))  # a child's CPU time starts at zero, but be sure
    resource.setrlimit(resource.RLIMIT_CPU, (now + setup.cpu_s, now + setup.cpu_s + 1))
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    most = pages * resource.getpagesize() + setup.memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _try(compiler: GrammarCompiler, grammar: str, vocab_size: int) -> bytes:
    """Compile it and try it on."""
    try:
        constraint = compiler.compile(grammar)()
        return _walk(constraint, np.zeros(-(-vocab_size // 32), np.uint32))
    except (ValueError, ConstraintError) as error:
        return str(error).encode()


def _walk(constraint: Constraint, mask: UInt32) -> bytes:
    """Go some way along the grammar, by tokens drawn at random, and look how long that takes."""
    draw, started, count = random.Random(0), time.thread_time(), 0
    while count < WALK_TOKENS:
        count += 1
        constraint.fill_mask(mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        if not len(allowed):
            return b"nothing can satisfy it"
        if not constraint.advance([int(allowed[draw.randrange(len(allowed))])]) or constraint.is_finished:
            break
    each = (time.thread_time() - started) / count
    return b"it takes %d ms for each token: it is too ambiguous" % (each * 1000) if each > WALK_EACH_S else _OK


def main() -> int:
    """Serve standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = os.fdopen(0, "rb", buffering=0), os.fdopen(1, "wb")
    frame = read_frame(source)
    if frame is None:
        return 0
    setup = msgspec.msgpack.decode(frame, type=Setup)
    text = TextModel.load(setup.model)
    context = GrammarContext(
        vocab_size=setup.vocab_size, eos_token_ids=setup.eos_token_ids, load_tokens=lambda: token_table(text)
    )
    compiler: GrammarCompiler = Plugins.load().grammars.get_factory(setup.compiler)(context)
    _try(compiler, setup.warm_up, setup.vocab_size)  # so that no child has to read the vocabulary
    Zygote(setup, compiler, source, sink).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
