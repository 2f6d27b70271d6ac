"""What every worker does: answer lines of JSON; knows nothing of isotoken.

In:  {"op": "load", "threads": 2, ...}           more of it as the worker's `load` wants
     {"op": "run", "tasks": [[[prompt ids], number of new tokens], ...], ...}
Out: a line of JSON each; {"error": TEXT} where something went wrong.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

Task = tuple[list[int], int]
Times = list[list[float]]


class Engine(Protocol):
    """A loaded model."""

    def versions(self) -> dict[str, str]:
        """What runs here."""
        ...

    def run(self, tasks: list[Task], start: float, **how: Any) -> tuple[list[list[int]], Times]:
        """Return each task's tokens, and the seconds after `start` at which each came out."""
        ...


def serve(load: Callable[..., Engine]) -> int:
    """Answer until standard input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print goes to standard error
    loaded: list[Engine] = []
    for line in sys.stdin:
        try:
            reply = _answer(load, loaded, **json.loads(line))
        except Exception as error:  # told to who asked
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=out, flush=True)
    return 0


def _answer(load: Callable[..., Engine], loaded: list[Engine], *, op: str, **how: Any) -> dict[str, Any]:
    if op == "load":
        loaded.clear()
        loaded.append(load(**how))
        return {"versions": loaded[0].versions()}
    if op != "run":
        raise ValueError(f"unknown op {op!r}")
    tasks = [(prompt, num) for prompt, num in how.pop("tasks")]
    clock = getattr(loaded[0], "cpu_seconds", time.process_time)  # where others do the work than this process
    cpu, start = clock(), time.perf_counter()
    tokens, times = loaded[0].run(tasks, start, **how)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu_seconds": clock() - cpu, "tokens": tokens, "token_times": times}
