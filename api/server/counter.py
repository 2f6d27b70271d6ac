"""A counter for one thread, where adding costs a look-up and no locks, and labels are bounded whoever sets them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

OTHER = "other"
MAX_SERIES = 2000
"""Of one counter. What comes beyond is counted together: a mistake somewhere else must not fill anybody's memory."""


class Counter(Collector):
    """Sums, one for each combination of its labels' values."""

    def __init__(
        self,
        name: str,
        text: str,
        registry: CollectorRegistry,
        labels: Sequence[str] = (),
        *,
        start: Iterable[tuple[str, ...]] = (),
    ) -> None:
        """`start`: combinations that are there from the beginning, so that their first increase is seen as one."""
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._sums: dict[tuple[str, ...], float] = dict.fromkeys(start, 0.0) if labels else {(): 0.0}
        registry.register(self)

    def add(self, amount: float, *values: str) -> None:
        """Add to the sum of these labels' values."""
        sums = self._sums
        if values in sums:
            sums[values] += amount
            return
        if len(sums) >= MAX_SERIES:
            values = (OTHER,) * len(self._labels)
        sums[values] = sums.get(values, 0.0) + amount

    def collect(self) -> Iterator[Metric]:
        """Yield what Prometheus reads."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, total in self._sums.items():
            family.add_metric(values, total)
        yield family
