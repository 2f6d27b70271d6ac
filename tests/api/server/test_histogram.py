"""The histogram counts as Prometheus' own does."""

from __future__ import annotations

import random

import prometheus_client
import pytest
from isotoken.api.server.histogram import Histogram
from prometheus_client import CollectorRegistry, generate_latest

BOUNDS = (0.001, 0.01, 0.5, 1, 2.5, 16384)


def lines(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@pytest.mark.parametrize("label", ["", "route"])
def test_it_counts_as_prometheus_does(label: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("h", "What it is", BOUNDS, ours, label=label)
    other = prometheus_client.Histogram("h", "What it is", [label] if label else [], buckets=BOUNDS, registry=theirs)
    assert lines(ours) == lines(theirs)
    for _ in range(200):
        value = draw.choice([draw.choice(BOUNDS), float(draw.randrange(4)), 99999.0, 0.25])
        name = draw.choice(["/a", "/b"]) if label else ""
        mine.observe(value, name)
        (other.labels(name) if label else other).observe(value)
    assert sorted(lines(ours)) == sorted(lines(theirs))
    if not label:
        values = [draw.random() * 3 for _ in range(50)]
        mine.observe_all(values)
        for value in values:
            other.observe(value)
        got, want = (dict(line.rsplit(" ", 1) for line in lines(r) if line[0] != "#") for r in (ours, theirs))
        assert got.pop("h_sum") != "" and float(want.pop("h_sum")) > 0
        assert got == want
