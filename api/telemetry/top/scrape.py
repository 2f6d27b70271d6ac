"""Scrape: one reading of a server's /metrics."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]

PROBES = ("/health", "/metrics")


@dataclass(frozen=True, slots=True)
class Scrape:
    """Every sample of one reading, by its name."""

    at: float  # time.monotonic()
    samples: Mapping[str, list[tuple[Labels, float]]]

    def without_probes(self) -> Scrape:
        """Return the same without samples of routes that only watchers use, such as this reading itself."""
        kept = {
            name: [(labels, value) for labels, value in found if not labels.get("route", "").startswith(PROBES)]
            for name, found in self.samples.items()
        }
        return Scrape(self.at, kept)

    def total(self, name: str, **labels: str) -> float:
        """Add up the samples with these labels; 0 where there are none."""
        return sum(value for found, value in self.samples.get(name, ()) if labels.items() <= found.items())

    def has(self, name: str) -> bool:
        """Whether there is any such sample."""
        return name in self.samples

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Add samples up for each value of a label."""
        sums: dict[str, float] = defaultdict(float)
        for found, value in self.samples.get(name, ()):
            if label in found and labels.items() <= found.items():
                sums[found[label]] += value
        return dict(sums)

    def buckets(self, name: str, **labels: str) -> list[tuple[float, float]]:
        """Return a histogram's (upper bound, how many were at most that), with those of all series added up."""
        return sorted((float(bound), count) for bound, count in self.by("le", f"{name}_bucket", **labels).items())


def parse(text: str, at: float) -> Scrape:
    """Read Prometheus' text format. Raises ValueError for anything else."""
    samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return Scrape(at, samples).without_probes()


def fetch(url: str, *, key: str = "", timeout: float = 5.0) -> Scrape:
    """Read the server at this URL. Raises OSError or ValueError, with a sentence for the user."""
    request = urllib.request.Request(metrics_url(url))
    if key:
        request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        hint = "; give a key with --key" if error.code in (401, 403) else ""
        raise OSError(f"{request.full_url} answered with {error.code}{hint}") from error
    except urllib.error.URLError as error:
        raise OSError(f"cannot reach {request.full_url}: {error.reason}") from error
    except OSError as error:
        raise OSError(f"cannot reach {request.full_url}: {error or type(error).__name__}") from error
    scrape = parse(text, time.monotonic())
    if not scrape.has("llm_http_requests_in_flight"):
        raise ValueError(f"{request.full_url} has none of isotoken's metrics")
    return scrape


def metrics_url(url: str) -> str:
    """Return where a server's metrics are: its address may be given short. Raises ValueError for what is no address."""
    full = url if "://" in url else f"http://{url}"
    parts = urlsplit(full)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{url!r} is no address of a server: http://127.0.0.1:8000 is one")
    return full if parts.path not in ("", "/") else f"{parts.scheme}://{parts.netloc}/metrics"
