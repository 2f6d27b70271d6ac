"""Labels are bounded whoever asks for them, and go to the busiest."""

from __future__ import annotations

from collections import defaultdict

from isotoken.api.server.counter import MAX_SERIES, Counter
from isotoken.api.telemetry.labels import OTHER, TopLabels
from prometheus_client import CollectorRegistry


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_there_are_no_more_names_than_places() -> None:
    labels = TopLabels(10)
    found = {labels.label(f"tenant-{i}") for i in range(10_000)}
    assert found == {f"tenant-{i}" for i in range(10)} | {OTHER}
    assert len(labels._others) <= 40  # whoever is not shown takes no memory either


def test_the_busy_get_the_places_of_those_who_are_not_and_no_amount_is_counted_twice() -> None:
    clock = Clock()
    labels = TopLabels(4, period=60, clock=clock)
    counted: dict[str, float] = defaultdict(float)
    total = 0.0
    for _ in range(20):
        for tenant, weight in (("a", 1), ("b", 1), ("c", 1), ("d", 1), ("busy", 50), ("busier", 80)):
            counted[labels.label(tenant, weight)] += weight
            total += weight
        clock.now += 10
        labels.review()
    assert sum(counted.values()) == total
    assert {labels.label(name) for name in ("busy", "busier")} == {"busy", "busier"}
    assert [labels.label(name) for name in "abcd"].count(OTHER) == 2


def test_places_do_not_change_hands_for_nothing() -> None:
    clock = Clock()
    labels = TopLabels(2, period=60, clock=clock)
    for i in range(1000):
        labels.label("a", 5)
        labels.label("b", 5)
        labels.label(f"hostile-{i}", 5)  # as busy as anybody, under ever new names
        clock.now += 1
        labels.review()
    assert labels.label("a") == "a"
    assert labels.label("b") == "b"


def test_long_names_are_cut() -> None:
    assert TopLabels(1).label("x" * 1000) == "x" * 64


def test_a_counter_has_an_end() -> None:
    registry = CollectorRegistry()
    counter = Counter("c", "What it is", registry, ["who"])
    for i in range(MAX_SERIES + 500):
        counter.add(1, str(i))
    (family,) = registry.collect()
    values = {sample.labels["who"]: sample.value for sample in family.samples}
    assert len(values) == MAX_SERIES + 1
    assert values["other"] == 500
    assert sum(values.values()) == MAX_SERIES + 500
