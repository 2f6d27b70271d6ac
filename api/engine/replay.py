"""Who may run: after a crash every request is replayed; those that were there when it happened again, one at a time.

A crash says that one of the requests in flight may have caused it, not which. So the first time all are replayed
together. Those in flight at two crashes are suspects: each is replayed alone, the others waiting, until it has come
some tokens past where it was (then it is cleared and waits too) or has brought the engine down by itself (twice, so
that a stray signal condemns nobody): then it is failed, alone. Once no suspect is left, all go on together.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from ...core.types import RequestOutput, TokenLogprobs
from .messages import Submit

MAX_STRIKES_TOGETHER = 2  # crashes in flight from which on a request is a suspect
MAX_STRIKES = 5  # from which on it runs alone to its end, so that a combination of requests ends too
MAX_LONE_CRASHES = 2  # without progress
FORGIVING_TOKENS = 64  # further, and the crash is forgotten: a long request may see several that are not its doing
CLEARING_TOKENS = 4  # past where it was at the crash: well behind any draft or unpublished token of then


@dataclass(eq=False, slots=True, kw_only=True)
class Entry:
    """One choice in flight: what was submitted, and what the engine has answered so far."""

    submit: Submit
    deadline: float | None = None  # time.monotonic() seconds
    output_ids: list[int] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    engine_id: str | None = None  # its name in the engine; None: it waits here
    strikes: int = 0  # crashes while it was in flight
    lone_crashes: int = 0  # of those, alone and without progress
    cleared_at: int = 0  # number of output tokens from which on it is past its last crash

    def take(self, output: RequestOutput) -> None:
        """Note what the engine answered."""
        self.output_ids += output.token_ids
        if output.prompt_logprobs:
            self.prompt_logprobs += output.prompt_logprobs

    def submission(self, engine_id: str, now: float) -> Submit:
        """Return the request as it is to go on from here, under a new name: answers to an older one are stale."""
        self.engine_id = engine_id
        params = self.submit.params
        if params.num_prompt_logprobs is not None:
            if len(self.prompt_logprobs) == len(self.submit.prompt_ids) - 1:
                params = replace(params, num_prompt_logprobs=None)
            else:
                self.prompt_logprobs.clear()  # scored anew, from the start
        return Submit(
            engine_id,
            self.submit.prompt_ids,
            params,
            list(self.output_ids),
            self.submit.priority,
            None if self.deadline is None else self.deadline - now,
            self.submit.cache_salt,
            self.submit.whole,
        )


class Replay:
    """Decides which entries are in the engine. Knows nothing of processes: feed it events, send what it returns."""

    def __init__(self) -> None:
        self._entries: dict[Entry, None] = {}  # in order of arrival
        self._suspects: deque[Entry] = deque()
        self._on_trial: Entry | None = None
        self._up = False

    @property
    def entries(self) -> list[Entry]:
        """All that have not ended."""
        return list(self._entries)

    @property
    def num_suspects(self) -> int:
        """Requests that wait for their trial or stand it."""
        return len(self._suspects) + (self._on_trial is not None)

    def add(self, entry: Entry) -> list[Entry]:
        """A request came. Returns what is to be submitted now."""
        self._entries[entry] = None
        return [entry] if self._up and not self.num_suspects else []

    def remove(self, entry: Entry) -> list[Entry]:
        """A request ended or left. Returns what is to be submitted now."""
        self._entries.pop(entry, None)
        if entry in self._suspects:
            self._suspects.remove(entry)
        if entry is not self._on_trial:
            return []
        self._on_trial = None
        return self._next()

    def progressed(self, entry: Entry) -> tuple[list[Entry], list[Entry]]:
        """A request got tokens. Returns what is to be taken out of the engine for now, and what is to be submitted."""
        alone = entry.strikes >= MAX_STRIKES
        if entry is not self._on_trial or alone or len(entry.output_ids) < entry.cleared_at:
            return [], []
        entry.lone_crashes = 0
        self._on_trial = None
        paused = [entry] if self._suspects else []
        return paused, self._next()

    def crashed(self) -> list[Entry]:
        """The engine died. Returns the requests that are condemned; they are out."""
        self._up = False
        in_flight = [entry for entry in self._entries if entry.engine_id is not None]
        on_trial, self._on_trial = self._on_trial, None
        for entry in in_flight:
            far = len(entry.output_ids) >= entry.cleared_at + FORGIVING_TOKENS
            entry.strikes = 1 if far else entry.strikes + 1
            entry.engine_id = None
        condemned = []
        if on_trial is not None:
            stuck = len(on_trial.output_ids) < on_trial.cleared_at
            on_trial.lone_crashes += stuck
            if on_trial.lone_crashes >= MAX_LONE_CRASHES:
                condemned.append(on_trial)
                del self._entries[on_trial]
            else:
                self._suspects.appendleft(on_trial)
        else:
            # Those that got nowhere since their last crash come first: they are the likeliest.
            suspects = [entry for entry in in_flight if entry.strikes >= MAX_STRIKES_TOGETHER]
            self._suspects.extend(sorted(suspects, key=lambda entry: len(entry.output_ids) >= entry.cleared_at))
        for entry in in_flight:
            entry.cleared_at = len(entry.output_ids) + CLEARING_TOKENS
        return condemned

    def engine_is_up(self) -> list[Entry]:
        """A new engine stands. Returns what is to be submitted now."""
        self._up = True
        return self._next()

    def _next(self) -> list[Entry]:
        if not self._up:
            return []
        if self._suspects:
            self._on_trial = self._suspects.popleft()
            return [self._on_trial]
        return [entry for entry in self._entries if entry.engine_id is None]
