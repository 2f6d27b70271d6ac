"""Recorder: measures one request as it goes, and says at its end how it went."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from .types import RequestStats

log = logging.getLogger("isotoken.requests")


class Recorder:
    """Notes when what came. Times are time.monotonic() seconds."""

    def __init__(self, request_id: str, model: str, num_prompt_tokens: int, num_choices: int) -> None:
        self.submitted = time.monotonic()
        self._request_id = request_id
        self._model = model
        self._num_prompt_tokens = num_prompt_tokens
        self._num_cached_tokens = 0
        self._num_output_tokens = 0
        self._num_drafted = self._num_accepted = 0
        self._scheduled: float | None = None
        self._first_token: float | None = None
        self._last_token: list[float | None] = [None] * num_choices
        self._gaps: list[float] = []
        self.detokenize_time: float | None = None  # seconds; None: nobody measures it

    @property
    def age(self) -> float:
        """Seconds since it was submitted."""
        return time.monotonic() - self.submitted

    def scheduled(self, step_duration: float) -> None:
        """The first of the choices was taken into a step that has just ended."""
        if self._scheduled is None:
            self._scheduled = max(self.submitted, time.monotonic() - step_duration)

    def tokens(self, index: int, count: int, num_cached_tokens: int) -> None:
        """Choice `index` got tokens, all at once."""
        now = time.monotonic()
        # The other choices find what the first has just left in the cache. Of its best life, if it was replayed.
        if index == 0 and num_cached_tokens > self._num_cached_tokens:
            self._num_cached_tokens = num_cached_tokens
        if not count:
            return
        self._num_output_tokens += count
        last, self._last_token[index] = self._last_token[index], now
        if self._first_token is None:
            self._first_token = now
        if last is not None:
            self._gaps += [(now - last) / count] * count

    def drafted(self, num_drafted: int, num_accepted: int) -> None:
        """A step verified guesses for one of the choices."""
        self._num_drafted += num_drafted
        self._num_accepted += num_accepted

    def finish(self, reasons: Sequence[str], error: str | None = None) -> RequestStats:
        """All is over: log one line and return the numbers."""
        stats = self.stats(reasons, error)
        if log.isEnabledFor(logging.INFO):
            log.info("%s", describe(stats))
        return stats

    def stats(self, reasons: Sequence[str] = (), error: str | None = None) -> RequestStats:
        """Return the numbers so far."""
        return RequestStats(
            request_id=self._request_id,
            model=self._model,
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=self._num_cached_tokens,
            num_output_tokens=self._num_output_tokens,
            finish_reasons=tuple(reasons),
            queue_time=None if self._scheduled is None else self._scheduled - self.submitted,
            time_to_first_token=None if self._first_token is None else self._first_token - self.submitted,
            inter_token_latencies=tuple(self._gaps),
            total_latency=self.age,
            error=error,
            num_drafted_tokens=self._num_drafted,
            num_accepted_tokens=self._num_accepted,
            submitted=self.submitted,
            detokenize_time=self.detokenize_time,
        )


def describe(stats: RequestStats) -> str:
    """Return the log line of a finished request."""
    gaps = stats.inter_token_latencies
    mean_gap = sum(gaps) / len(gaps) if gaps else None
    return (
        f"{stats.request_id} {'/'.join(stats.finish_reasons)} "
        f"prompt={stats.num_prompt_tokens} cached={stats.num_cached_tokens} generated={stats.num_output_tokens} "
        f"queue={_ms(stats.queue_time)} first={_ms(stats.time_to_first_token)} next={_ms(mean_gap)} "
        f"total={_ms(stats.total_latency)}" + (f" error={stats.error!r}" if stats.error else "")
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}ms"
