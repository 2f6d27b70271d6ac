"""A histogram for one thread, where observing costs a look-up and no locks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString


class Histogram(Collector):
    """Counts by upper bounds, for each value of a label where it has one."""

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry, *, label: str = ""
    ) -> None:
        self._name, self._text, self._label = name, text, label
        self._bounds = tuple(map(float, bounds))
        self._counts: dict[str, list[int]] = {} if label else {"": self._none()}
        self.sums: dict[str, float] = {} if label else {"": 0.0}
        registry.register(self)

    def observe(self, value: float, label: str = "") -> None:
        """Count one value."""
        counts = self._counts.get(label)
        if counts is None:
            counts = self._counts[label] = self._none()
            self.sums[label] = 0.0
        counts[bisect_left(self._bounds, value)] += 1
        self.sums[label] += value

    def observe_all(self, values: Iterable[float], label: str = "") -> None:
        """Count several values."""
        counts = self._counts.get(label)
        if counts is None:
            counts = self._counts[label] = self._none()
            self.sums[label] = 0.0
        bounds, total, before, place = self._bounds, 0.0, None, 0
        for value in values:
            if value != before:  # tokens that came together are told the same
                before, place = value, bisect_left(bounds, value)
            counts[place] += 1
            total += value
        self.sums[label] += total

    def collect(self) -> Iterator[Metric]:
        """Yield what Prometheus reads: how many were at most each bound."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for label, counts in self._counts.items():
            buckets, at_most = [], 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                at_most += count
                buckets.append((floatToGoString(bound), float(at_most)))
            family.add_metric([label] if self._label else [], buckets, self.sums[label])
        yield family

    def _none(self) -> list[int]:
        return [0] * (len(self._bounds) + 1)
