"""Loads of the overload benchmark summed up, as a table and as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .load.asker import Outcomes
from .load.figures import percentile

MAX_RATIO, MAX_REFUSAL_MS = 1.5, 10.0  # what is to be kept to
MS = 1000.0


@dataclass(slots=True)
class Load:
    """One load and what came of it. Times in milliseconds."""

    name: str
    offered: float  # requests a second
    accepted: float  # a second
    refused: float  # a second
    failed: int
    first_token_p50: float
    first_token_p99: float
    refusal_p50: float | None
    refusal_p99: float | None
    memory_mb: list[float] = field(default_factory=list)  # of the server's process, each half second

    @classmethod
    def of(cls, name: str, outcomes: Outcomes, memory: list[float]) -> Load:
        """Sum up."""
        firsts = [each.first_token * MS for each in outcomes.accepted if each.first_token is not None] or [0.0]
        refusals = [each.ended * MS for each in outcomes.refused if each.ended is not None]
        return cls(
            name,
            len(outcomes.all) / outcomes.seconds,
            len(outcomes.accepted) / outcomes.seconds,
            len(outcomes.refused) / outcomes.seconds,
            len(outcomes.failed),
            percentile(firsts, 50),
            percentile(firsts, 99),
            percentile(refusals, 50) if refusals else None,
            percentile(refusals, 99) if refusals else None,
            memory,
        )

    @property
    def growth_mb(self) -> float:
        """By how much the memory grew in the second half, when the queue has long been full."""
        half = self.memory_mb[len(self.memory_mb) // 2 :]
        return half[-1] - half[0] if half else 0.0


def draw(loads: Sequence[Load], path: Path, caption: str) -> None:
    """Draw times to first tokens, times to refusals, and memory."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "isotoken", "font.size": 10, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    alone, bound, *rest, _ = loads
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    rates = [load.offered / alone.accepted for load in rest]
    for field_, dashes in (("first_token_p99", "-"), ("first_token_p50", ":")):
        values = [getattr(load, field_) for load in rest]
        left.plot(rates, values, dashes, color="#0b63b0", marker="o", markersize=4, label=f"accepted, {field_[-3:]}")
    left.axhline(bound.first_token_p99, color="#555555", linewidth=1, label="at the bound, p99")
    left.axhline(MAX_RATIO * bound.first_token_p99, color="#d1603d", linewidth=1, linestyle="--", label="1.5 times")
    left.set(title="To the first token", xlabel="load, in times of what can be answered", ylabel="ms", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    refused = [(x, load) for x, load in zip(rates, rest, strict=True) if load.refusal_p99 is not None]
    for field_, dashes in (("refusal_p99", "-"), ("refusal_p50", ":")):
        values = [getattr(load, field_) for _, load in refused]
        middle.plot(
            [x for x, _ in refused], values, dashes, color="#d1603d", marker="o", markersize=4, label=field_[-3:]
        )
    middle.axhline(MAX_REFUSAL_MS, color="#555555", linewidth=1, linestyle="--", label="10 ms")
    middle.set(title="To a refusal (429)", xlabel="load", ylabel="ms", ylim=(0, None))
    middle.legend(frameon=False, fontsize=8)
    most = rest[-1]
    right.plot([i / 2 for i in range(len(most.memory_mb))], most.memory_mb, color="#0b63b0")
    right.set(title=f"Memory at {most.name} the load", xlabel="s", ylabel="MB", ylim=(0, 1.4 * max(most.memory_mb)))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    fig.supxlabel(caption, fontsize=8, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(fig)


def table(loads: Sequence[Load]) -> str:
    """Return the loads as a table in Markdown."""
    header = "| load | offered/s | answered/s | refused/s | first token, p50 | p99 | refusal, p50 | p99 |\n"
    header += "|---|--:|--:|--:|--:|--:|--:|--:|"
    return "\n".join([header, *(_row(load) for load in loads)])


def _row(load: Load) -> str:
    times = (load.first_token_p50, load.first_token_p99, load.refusal_p50, load.refusal_p99)
    shown = " | ".join("" if value is None else f"{value:.1f} ms" for value in times)
    return f"| {load.name} | {load.offered:.0f} | {load.accepted:.0f} | {load.refused:.0f} | {shown} |"


def line(load: Load) -> str:
    """Return a load as a row with what the table has no room for."""
    return f"{_row(load)} {load.failed} failed, memory {load.memory_mb[-1] if load.memory_mb else 0:.0f} MB"
