"""The engines' own numbers by model, read when they are asked for: nothing is done for them while tokens flow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .gpu import GpuMeter

if TYPE_CHECKING:
    from ..engine import AsyncEngine, EngineStats

_COUNTERS = {
    "llm_tokens_generated": ("num_new_tokens", "Output tokens"),
    "llm_engine_tokens": ("num_tokens", "Query tokens computed, prompts included"),
    "llm_engine_steps": ("num_steps", "Steps of the engine"),
    "llm_preemptions": ("num_preemptions", "Requests put back to make room"),
    "llm_prefix_cache_queries": ("num_prefix_queries", "Prompt tokens looked up in the prefix cache"),
    "llm_prefix_cache_hits": ("num_prefix_hits", "Prompt tokens found there"),
    "llm_draft_tokens": ("num_drafted", "Tokens guessed for speculation"),
    "llm_accepted_tokens": ("num_accepted", "Of the guesses, those that were right"),
    "llm_draft_stops": ("num_draft_stops", "Times that guessing ceased to pay for a request"),
    "llm_drafter_failures": ("num_drafter_failures", "Drafters that failed and were switched off"),
    "llm_engine_restarts": ("num_restarts", "Restarts of the engine's process"),
    "llm_replayed_choices": ("num_replayed", "Answers continued after a restart"),
    "llm_failed_alone_choices": ("num_failed_alone", "Answers given up because they kill the engine"),
}
_GAUGES = {
    "llm_tokens_per_second": "Output tokens a second, of late",
    "llm_batch_size": "Requests in the latest step; 0 when idle",
    "llm_batch_tokens": "Query tokens in the latest step; 0 when idle",
    "llm_requests_undrafted": "Requests for which nothing was guessed since it would not pay; 0 when idle",
    "llm_step_duration_seconds": "Of the latest step",
    "llm_requests_running": "Requests that hold a row of the batch",
    "llm_requests_running_max": "Rows that there are",
    "llm_requests_waiting": "Requests that wait for their first step",
    "llm_requests_in_flight": "Answers asked for and not yet complete",
    "llm_waiting_prompt_tokens": "Of answers without a first token",
    "llm_kv_blocks": "Blocks of K/V memory",
    "llm_kv_blocks_used": "Of those, held by requests",
    "llm_kv_usage_ratio": "Share of K/V memory held by requests",
    "llm_engine_ready": "1 when requests are taken",
    "llm_engine_stuck": "1 when there is work and no step is made",
    "llm_engine_silence_seconds": "For how long an answer of the engine has been due",
}


class EngineMetrics(Collector):
    """All engines. Those that serve one model at the same time, as when it is swapped, are told together."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._gpus: GpuMeter | None = None

    def attach(self, engine: AsyncEngine, model: str) -> None:
        """Show an engine's numbers under the name of its model."""
        self._groups.setdefault(model, _Group()).engines.append(engine)
        if self._gpus is None or engine.info.device.startswith("cuda"):
            self._gpus = GpuMeter(engine.info.device)

    def detach(self, engine: AsyncEngine) -> None:
        """An engine ends: what it has counted stays counted."""
        for group in self._groups.values():
            if engine in group.engines:
                group.engines.remove(engine)
                group.retire(engine.stats)

    @property
    def engines(self) -> list[AsyncEngine]:
        """Those that are attached."""
        return [engine for group in self._groups.values() for engine in group.engines]

    def collect(self) -> Iterator[Metric]:
        """Yield gauges and counters of every model, and those of the device."""
        gauges = {model: group.gauges() for model, group in self._groups.items()}
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            for model, values in gauges.items():
                gauge.add_metric([model], values[name])
            yield gauge
        for name, (field, text) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["model"])
            for model, group in self._groups.items():
                counter.add_metric([model], group.count(field))
            yield counter
        if self._gpus is not None:
            yield from self._gpus.collect()


class _Group:
    """The engines of one model: usually one."""

    def __init__(self) -> None:
        self.engines: list[AsyncEngine] = []
        self._retired: dict[str, float] = {}  # what engines that are gone have counted
        self._tokens = TokenRate()

    def retire(self, stats: EngineStats) -> None:
        """Keep what an engine has counted."""
        for field, _ in _COUNTERS.values():
            self._retired[field] = self._retired.get(field, 0) + getattr(stats, field)

    def count(self, field: str) -> float:
        """Return a counter of all engines that there ever were."""
        counts = (float(getattr(engine.stats, field)) for engine in self.engines)
        return self._retired.get(field, 0) + sum(counts)

    def gauges(self) -> dict[str, float]:
        """Return the value of each gauge."""
        every = [engine.stats for engine in self.engines]
        busy = [stats for stats in every if stats.num_requests_in_flight]
        blocks = sum(stats.num_blocks for stats in every)
        used = blocks - sum(stats.num_free_blocks for stats in every)
        return {
            "llm_tokens_per_second": self._tokens.rate(int(self.count("num_new_tokens"))),
            "llm_batch_size": sum(stats.num_batched_requests for stats in busy),
            "llm_batch_tokens": sum(stats.num_batched_tokens for stats in busy),
            "llm_requests_undrafted": sum(stats.num_undrafted for stats in busy),
            "llm_step_duration_seconds": max((stats.step_duration for stats in every), default=0.0),
            "llm_requests_running": sum(stats.num_running for stats in every),
            "llm_requests_running_max": sum(engine.info.max_num_seqs for engine in self.engines),
            "llm_requests_waiting": sum(stats.num_waiting for stats in every),
            "llm_requests_in_flight": sum(stats.num_requests_in_flight for stats in every),
            "llm_waiting_prompt_tokens": sum(stats.num_waiting_prompt_tokens for stats in every),
            "llm_kv_blocks": blocks,
            "llm_kv_blocks_used": used,
            "llm_kv_usage_ratio": used / max(1, blocks),
            "llm_engine_ready": float(any(engine.takes_requests for engine in self.engines)),
            "llm_engine_stuck": float(any(engine.is_stuck for engine in self.engines)),
            "llm_engine_silence_seconds": max((engine.silence for engine in self.engines), default=0.0),
        }


class TokenRate:
    """Tokens a second from a counter that is only looked at now and then: over the time since an earlier look."""

    def __init__(self, at_least: float = 1.0, at_most: float = 15.0) -> None:
        self._at_least = at_least
        self._at_most = at_most
        self._looks: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def rate(self, count: int) -> float:
        """Note the counter and return its rate since a look that is 1 to 15 s old, or the latest older one."""
        now = time.monotonic()
        while len(self._looks) > 1 and now - self._looks[1][0] >= self._at_most:
            del self._looks[0]
        then, before = self._looks[0]
        if now - self._looks[-1][0] >= self._at_least:
            self._looks.append((now, count))
        return max(0, count - before) / max(now - then, 1e-9)
