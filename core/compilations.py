"""Compilations: grammars compiled by threads of their own, so that no step waits for one; the latest are kept."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from .constraints import Constraint, GrammarCompiler

NUM_THREADS = 2
NUM_KEPT = 128
STACK_BYTES = 64 * 2**20  # more than wherever a grammar was tried out beforehand

Compilation = Future[Callable[[], Constraint]]


class Compilations:
    """Compiles each grammar once, as long as it is among the latest. For one caller."""

    def __init__(self, compiler: GrammarCompiler) -> None:
        self._compiler = compiler
        self._kept: OrderedDict[str, Compilation] = OrderedDict()
        self._todo: queue.SimpleQueue[tuple[str, Compilation] | None] = queue.SimpleQueue()
        self._num_threads = 0

    def start(self, grammar: str) -> Compilation:
        """Return what becomes of a grammar: a maker of constraints, or ValueError."""
        found = self._kept.get(grammar)
        if found is None:
            found = self._kept[grammar] = Future()
            self._todo.put((grammar, found))
            self._hire()
        self._kept.move_to_end(grammar)
        if len(self._kept) > NUM_KEPT:
            self._kept.popitem(last=False)
        return found

    def close(self) -> None:
        """End the threads."""
        for _ in range(self._num_threads):
            self._todo.put(None)
        self._num_threads = 0

    def _hire(self) -> None:
        if self._num_threads < NUM_THREADS:
            self._num_threads += 1
            name = f"isotoken-grammars-{self._num_threads}"
            usual = threading.stack_size(STACK_BYTES)
            try:
                threading.Thread(target=self._work, name=name, daemon=True).start()
            finally:
                threading.stack_size(usual)

    def _work(self) -> None:
        while (item := self._todo.get()) is not None:
            grammar, compilation = item
            try:
                maker = self._compiler.compile(grammar)
            except ValueError as error:
                compilation.set_exception(error)
            except BaseException as error:  # a stranger's library: what it raises fails who asked, not the thread
                compilation.set_exception(ValueError(f"grammar: {type(error).__name__}: {error}"))
            else:
                compilation.set_result(maker)
            del item, compilation
