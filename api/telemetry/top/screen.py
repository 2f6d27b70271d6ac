"""The figures as tables that fit the terminal: side by side where it is wide, one below the other where it is not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .figures import Figures, ModelFigures

WIDE = 110
"""Columns from which latencies and tenants stand side by side, and models show everything."""
MEDIUM = 76
_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 120
_MAX_TENANTS = 10


class Screen:
    """Draws figures, and remembers a little of the past for the curves."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._tokens: deque[float] = deque(maxlen=_HISTORY)
        self._batch: deque[float] = deque(maxlen=_HISTORY)

    def note(self, figures: Figures) -> None:
        """Take the next figures into the curves."""
        self._tokens.append(figures.tokens_per_s)
        self._batch.append(figures.batch)

    def draw(self, figures: Figures | None, width: int, problem: str = "") -> RenderableType:
        """Return everything for a terminal of so many columns."""
        parts: list[RenderableType] = [Text(self._title, style="bold", no_wrap=True, overflow="ellipsis")]
        if problem:
            parts.append(Text(problem, style="red", no_wrap=True, overflow="ellipsis"))
        if figures is None:
            return Group(*parts, Text("waiting for a second reading" if not problem else ""))
        parts += [_summary(figures), *self._curves(width), _models(figures.models, width)]
        lower = [_latencies(figures)]
        if figures.tenants:
            lower.append(_tenants(figures, width))
        if width >= WIDE:
            parts.append(Columns(lower, padding=(0, 2)))
        else:
            parts += lower
        return Group(*parts)

    def _curves(self, width: int) -> list[Text]:
        if len(self._tokens) < 2:
            return []
        room = max(8, width - 26)
        return [
            Text(f"{name:<10}{bars(values, room)}  at most {max(values):.4g}", no_wrap=True, overflow="crop")
            for name, values in (("tokens/s", self._tokens), ("batch", self._batch))
        ]


def bars(values: Iterable[float], room: int) -> str:
    """Draw the latest values as a line of blocks."""
    latest = list(values)[-room:]
    top = max(latest, default=0.0) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))] for value in latest)


def _summary(figures: Figures) -> Text:
    parts = [
        "ready" if figures.ready else "NOT READY",
        f"{figures.requests_per_s:.1f} requests/s",
        f"{percent(figures.error_share)} errors",
        f"{figures.in_flight:.0f} in flight",
        f"{figures.tokens_per_s:.0f} tokens/s",
        f"{figures.cores:.1f} cores",
        size(figures.memory_bytes),
    ]
    if figures.gpu_share is not None:
        parts.append(f"GPU {percent(figures.gpu_share)}")
    if figures.cost_per_h:
        parts.append(f"cost {figures.cost_per_h:.4g}/h")
    if figures.ledger_lag_s is not None:
        parts.append(
            f"ledger {figures.ledger_lag_s:.0f} s behind" if figures.ledger_lag_s >= 1 else "ledger up to date"
        )
    parts += [f"{rate:.1f}/s past a limit ({limit})" for limit, rate in figures.limited_per_s.items()]
    parts += [f"{rate:.1f}/s filtered ({action})" for action, rate in figures.filtered_per_s.items()]
    return Text("  ".join(parts), style="" if figures.ready else "red")


def _models(models: Sequence[ModelFigures], width: int) -> Table:
    table = _table("model", "state", "run", "wait", most=max(8, width - 34))
    medium, wide = width >= MEDIUM, width >= WIDE
    for name, shown in (
        ("batch", medium), ("tok/s", True), ("step", medium), ("KV", True), ("hits", medium), ("drafts", wide),
        ("restarts", wide),
    ):  # fmt: skip
        if shown:
            table.add_column(name, justify="right", no_wrap=True)
    for model in models:
        cells: list[tuple[str | Text, bool]] = [
            (model.name, True),
            (Text(model.state, style="green" if model.state == "ready" else "red"), True),
            (f"{model.running:.0f}/{model.places:.0f}" if wide else f"{model.running:.0f}", True),
            (f"{model.waiting:.0f}", True),
            (f"{model.batch:.0f}", medium),
            (f"{model.tokens_per_s:.0f}", True),
            (duration(model.step_s), medium),
            (percent(model.kv_share), True),
            (percent(model.hit_share), medium),
            (percent(model.accepted_share), wide),
            (f"{model.restarts:.0f}", wide),
        ]
        table.add_row(*(cell for cell, shown in cells if shown))
    return table


def _latencies(figures: Figures) -> Table:
    table = _table("latency", "p50", "p95", "p99")
    for what, found in figures.latencies.items():
        table.add_row(what, duration(found.p50), duration(found.p95), duration(found.p99))
    return table


def _tenants(figures: Figures, width: int) -> Table:
    table = _table("tenant", "req/s", "in/s", "out/s")
    medium = width >= MEDIUM
    if medium:
        table.add_column("cached", justify="right", no_wrap=True)
    table.add_column("cost/h", justify="right", no_wrap=True)
    for tenant in figures.tenants[:_MAX_TENANTS]:
        cells = [tenant.name, f"{tenant.requests_per_s:.1f}", f"{tenant.prompt_per_s:.0f}"]
        cells += [f"{tenant.generated_per_s:.0f}", *([percent(tenant.cached_share)] if medium else [])]
        table.add_row(*cells, f"{tenant.cost_per_h:.4g}")
    return table


def _table(first: str, *others: str, most: int = 32) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True, overflow="ellipsis", max_width=min(32, most))
    for name in others:
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    return table


def duration(seconds: float | None) -> str:
    """Return a time as people read it."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s"


def percent(share: float | None) -> str:
    """Return a share as people read it."""
    return "-" if share is None else f"{share * 100:.3g}%" if share < 0.1 else f"{share * 100:.0f}%"


def size(num_bytes: float) -> str:
    """Return bytes as people read them."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"
