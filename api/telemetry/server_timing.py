"""The Server-Timing header: where an answer's time went, as browsers and proxies show it."""

from __future__ import annotations

from collections.abc import Mapping

ORDER = ("auth", "wait", "tokenize", "queue", "prefill", "decode", "detokenize", "total")
"""The phases in the order in which they happen; the header has no others."""


def server_timing(seconds: Mapping[str, float]) -> str:
    """Return the header's value: the phases that are known, in milliseconds."""
    return ", ".join(f"{name};dur={seconds[name] * 1000:.2f}" for name in ORDER if name in seconds)
