"""A comparison as a table and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .compare import Comparison

QUIET = 0.15
"""CPUs used by others up to which a round counts as undisturbed."""


def table(comparisons: Sequence[Comparison]) -> str:
    """Markdown, a row for each workload and precision."""
    lines = [
        "| workload | weights | isotoken, tok/s | peer, tok/s | ratio | all ratios | isotoken as"
        " | the peer's fastest way | first token, ms | CPU time, s | busy with others, CPUs |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_row(each) for each in comparisons])


def _row(found: Comparison) -> str:
    rounds = found.rounds
    ours, theirs = (statistics.median(rates) for rates in zip(*((r.ours, r.theirs) for r in rounds), strict=True))
    cells = [
        found.workload,
        found.precision,
        f"{ours:.0f}",
        f"{theirs:.0f}",
        f"**{found.ratio:.2f}**",
        " ".join(f"{each.ratio:.2f}" for each in rounds),
        found.ours,
        f"{found.peer}: {found.way}",
        f"{found.first_tokens[0] * 1e3:.0f} / {found.first_tokens[1] * 1e3:.0f}",
        " / ".join(f"{statistics.median(r.cpu_seconds[whose] for r in rounds):.2f}" for whose in (0, 1)),
        f"{statistics.median(r.others for r in rounds):.2f} (most {max(r.others for r in rounds):.2f})",
    ]
    return "| " + " | ".join(cells) + " |"


def checks(comparisons: Sequence[Comparison]) -> str:
    """What became of the tokens, a line each."""
    return "\n".join(
        f"{each.workload} {each.precision}: {each.ours}: {each.checks[0]}; {each.peer}: {each.checks[1]}"
        for each in comparisons
    )


def write_json(path: Path, comparisons: Sequence[Comparison], facts: Mapping[str, Any]) -> None:
    """Write everything."""
    found = {**facts, "comparisons": [asdict(each) | {"ratio": each.ratio} for each in comparisons]}
    path.write_text(json.dumps(found, indent=1) + "\n")
