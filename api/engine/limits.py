"""Limits: how much a server takes on, and the admission that enforces it before a request costs anything."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Overloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that hold by default. 0 or None switches one off where its comment says so."""

    max_waiting_requests: int = 1024  # in flight beyond those that the engine runs at once
    max_waiting_prompt_tokens: int = 1_000_000  # of prompts whose first token is still to come
    max_body_bytes: int = 16 * 2**20  # of one HTTP request
    max_logprobs: int = 20  # per position; -1: as many as the vocabulary has
    request_timeout_s: float | None = 600.0  # from submission to the last token; None: no deadline unless asked for
    start_timeout_s: float = 1800.0  # for one start of the engine, loading included
    step_timeout_s: float = 300.0  # an engine that has work and is silent for so long is taken for hung
    stall_after_s: float = 5.0  # without a step, with work to do: from then on it may be stuck, and readiness goes
    max_start_attempts: int = 5  # consecutive starts that fail before the engine is given up
    backoff_s: float = 0.5  # before a restart without progress since the last; doubles each time
    max_backoff_s: float = 30.0
    max_connections: int = 10_000  # open at once; beyond, the one that has been idle for longest goes
    max_headers: int = 100  # of one HTTP request
    max_header_bytes: int = 32 * 1024  # likewise, the URL included
    max_url_bytes: int = 8 * 1024
    head_timeout_s: float = 15.0  # for a request's headers, from its first byte, or from the connection's beginning
    body_timeout_s: float = 120.0  # for a request's body, whole


class Admission:
    """Counts what is in flight and refuses what would go past the limits."""

    def __init__(self, limits: Limits, max_num_seqs: int) -> None:
        self._limits = limits
        self.max_num_seqs = max_num_seqs  # that the engine runs at once
        self._in_flight = 0  # choices
        self._waiting_tokens = 0  # prompt tokens of choices without a first token
        self._latency = 1.0  # seconds, smoothed, from submission to the end

    @property
    def num_in_flight(self) -> int:
        """Choices submitted and not yet ended."""
        return self._in_flight

    @property
    def num_waiting_prompt_tokens(self) -> int:
        """Prompt tokens of choices whose first token is still to come."""
        return self._waiting_tokens

    def admit(self, num_choices: int, num_prompt_tokens: int) -> None:
        """Count a request of n choices in. Raises Overloaded, and counts nothing, when it would go past a limit."""
        waiting = max(0, self._in_flight + num_choices - self.max_num_seqs)
        if self._in_flight and waiting > self._limits.max_waiting_requests:
            raise Overloaded(f"{self._in_flight} requests are in flight", self._retry_after())
        tokens = self._waiting_tokens + num_choices * num_prompt_tokens
        if self._waiting_tokens and tokens > self._limits.max_waiting_prompt_tokens:
            raise Overloaded(f"{self._waiting_tokens} prompt tokens are waiting", self._retry_after())
        self._in_flight += num_choices
        self._waiting_tokens = tokens

    def started(self, num_prompt_tokens: int) -> None:
        """A choice got its first token, or ended without one."""
        self._waiting_tokens -= num_prompt_tokens

    def ended(self, latency: float) -> None:
        """A choice ended, `latency` seconds after it was submitted."""
        self._in_flight -= 1
        self._latency += 0.1 * (latency - self._latency)

    def _retry_after(self) -> float:
        """Seconds until about as many have ended as are waiting: whole rounds of the smoothed latency."""
        rounds = 1 + max(0, self._in_flight - self.max_num_seqs) / max(1, self.max_num_seqs)
        return float(min(60, max(1, round(self._latency * rounds))))
