"""The section of docs/benchmarks.md about the way in, and the figures beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..schedulers import write_page
from .figures import Measurement, markdown

BEGIN, END = (f"<!-- load: {word} -->" for word in ("begin (made by benchmarks/load)", "end"))


def section(report: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    """Return the section."""
    machine = ", ".join(f"{name}: {value}" for name, value in report["machine"].items())
    hows = "\n".join(f"- {m.name}: {m.how}" for m in measurements)
    return f"""## The way in

```sh
{report["command"]}
```

How much a server carries around a model that costs nothing: the backend `null` answers at once, and the rest is all
there (HTTP, tokenising, the engine's process with scheduler and KV cache, detokenising). Client and server share the
machine. Answers are checked before anything is timed; streams are checked whole.

{markdown(measurements)}

{hows}

Medians of {report["rounds"]} rounds of {report["seconds"]:g} s after a warm-up, {report["started"]}; {machine}.
Other processes kept {" and ".join(map(str, report["cpus_busy_elsewhere"]))} CPUs busy before and after.
"""


def write(docs: Path, report: dict[str, Any], measurements: Sequence[Measurement]) -> None:
    """Write both."""
    (docs / "benchmarks").mkdir(exist_ok=True)
    (docs / "benchmarks" / "load.json").write_text(json.dumps(report, indent=1) + "\n")
    write_page(docs / "benchmarks.md", section(report, measurements), BEGIN, END)
