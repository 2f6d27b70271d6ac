"""The headers by which clients learn their limits, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Sequence

from .limiter import Demand, Level


def rate_headers(demands: Sequence[Demand], levels: Sequence[Level]) -> dict[str, str]:
    """Return x-ratelimit-* of each kind of rate: those of the bucket that has the least left, relative to its limit."""
    tightest: dict[str, tuple[float, Demand, Level]] = {}
    for demand, level in zip(demands, levels, strict=True):
        share = level.remaining / demand.limit
        if demand.kind != "concurrency" and (demand.kind not in tightest or share < tightest[demand.kind][0]):
            tightest[demand.kind] = share, demand, level
    headers: dict[str, str] = {}
    for kind, (_, demand, level) in tightest.items():
        headers |= {
            f"x-ratelimit-limit-{kind}": str(demand.limit),
            f"x-ratelimit-remaining-{kind}": str(level.remaining),
            f"x-ratelimit-reset-{kind}": duration(level.reset_s),
        }
    return headers


def duration(seconds: float) -> str:
    """Write a duration as OpenAI does: 120ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{round(seconds, 3):g}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s"
