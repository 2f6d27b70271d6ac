"""Progress of loading on stderr: a bar on a terminal, two plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...core.checkpoint import Checkpoint


class LoadProgress:
    """Shows how far the weights are. Use as a context manager around build_engine."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._bar: Any = None
        self._task: Any = None
        self._began = time.monotonic()

    def on_open(self, checkpoint: Checkpoint) -> None:
        """The weights are about to be read."""
        name = Path(checkpoint.path).name
        if self._enabled and sys.stderr.isatty():
            self._start_bar(f"loading {name}", checkpoint.num_bytes)
        else:
            self._say(f"loading {name}: {checkpoint.num_bytes / 1e6:.1f} MB")

    def on_read(self, _name: str, num_bytes: int) -> None:
        """One tensor was read."""
        if self._bar is not None:
            self._bar.update(self._task, advance=num_bytes)

    def __enter__(self) -> LoadProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif error is None:
            self._say(f"loaded in {time.monotonic() - self._began:.1f} s")

    def _say(self, line: str) -> None:
        if self._enabled:
            print(line, file=sys.stderr, flush=True)

    def _start_bar(self, text: str, total: int) -> None:
        from rich.console import Console  # noqa: PLC0415  (only a terminal needs it)
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(text, total=total)
        self._bar.start()
