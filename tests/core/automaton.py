"""A grammar library that fits on a page: outputs are walks through a graph of states, whose edges are tokens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence

from isotoken.core.batch import UInt32
from isotoken.core.constraints import ConstraintError
from isotoken.core.logits_edits import pack_mask

from .toy import VOCAB_SIZE

EOS = 80


class Walk:
    """A constraint. State s allows the tokens that are s or s + 1 modulo `period`; it may end where s is in `ends`."""

    def __init__(
        self, period: int, ends: Sequence[int] = (), last: int = 0, limit: int = 0, burns_s: float = 0
    ) -> None:
        self.period, self.ends, self.last, self.limit = period, frozenset(ends), last, limit
        self.burns_s = burns_s  # CPU time that a mask takes
        self.taken: list[int] = []
        self.error = ""

    @property
    def state(self) -> int:
        return sum(self.taken) % self.period

    def allowed(self) -> list[int]:
        if self.is_finished:
            return []
        near = {self.state, (self.state + 1) % self.period}
        return [token for token in range(VOCAB_SIZE) if token % self.period in near and token != EOS]

    def fill_mask(self, mask: UInt32) -> None:
        if self.limit and len(self.taken) >= self.limit:
            self.error = f"more than {self.limit} tokens are too much"
            raise ConstraintError(self.error)
        started = time.thread_time()
        while time.thread_time() < started + self.burns_s:
            pass
        mask[:] = pack_mask(self.allowed() + [EOS] * self.may_end, VOCAB_SIZE)

    def advance(self, token_ids: Sequence[int]) -> int:
        for count, token in enumerate(token_ids):
            if token not in self.allowed():
                return count
            self.taken.append(token)
        return len(token_ids)

    def rollback(self, num_tokens: int) -> None:
        assert num_tokens <= len(self.taken)
        if num_tokens:
            del self.taken[-num_tokens:]

    @property
    def may_end(self) -> bool:
        return self.state in self.ends or self.is_finished

    @property
    def is_finished(self) -> bool:
        return bool(self.last) and len(self.taken) >= self.last


class WalkCompiler:
    """Compiles an object of what Walk takes. `gate`: compilations wait for it."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.compiled: list[str] = []

    def compile(self, grammar: str) -> Callable[[], Walk]:
        self.compiled.append(grammar)
        if self.gate is not None:
            assert self.gate.wait(60)
        fields = json.loads(grammar)
        if "crash" in fields:
            raise RuntimeError("a bug in the library")
        return lambda: Walk(**fields)


def walk(period: int, **fields: object) -> str:
    """The text of a grammar."""
    return json.dumps({"period": period, **fields})
