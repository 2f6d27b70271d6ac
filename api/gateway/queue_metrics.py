"""The queues in numbers, for /metrics and for whoever decides how many servers there should be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .turnstiles import Turnstiles


class QueueMetrics(Collector):
    """Reads the turnstiles when it is asked."""

    def __init__(self, turnstiles: Turnstiles) -> None:
        self._turnstiles = turnstiles

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        waiting = GaugeMetricFamily("llm_queue_requests", "Requests that wait for their turn", labels=["model"])
        wait = GaugeMetricFamily(
            "llm_queue_expected_wait_seconds", "That a request of a new tenant would wait", labels=["model"]
        )
        shed = CounterMetricFamily(
            "llm_queue_shed", "Requests refused since they would wait too long", labels=["model"]
        )
        for model, turnstile in self._turnstiles.named():
            waiting.add_metric([model], turnstile.num_waiting)
            wait.add_metric([model], turnstile.expected_wait(""))
            shed.add_metric([model], turnstile.num_shed)
        yield from (waiting, wait, shed)
