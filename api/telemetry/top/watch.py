"""The loop of `isotoken top`: read, draw, wait for a key."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live

from .figures import Figures, figures
from .scrape import Scrape
from .screen import Screen

QUITS = frozenset("qQ\x1b\x03\x04")  # Escape, Ctrl-C and Ctrl-D where the terminal hands them on


def once(read: Callable[[], Scrape], interval: float) -> Figures:
    """Read twice and return what happened in between. Raises what `read` raises."""
    before = read()
    time.sleep(interval)
    return figures(before, read())


def watch(read: Callable[[], Scrape], console: Console, screen: Screen, interval: float) -> None:
    """Draw until a key ends it. A server that cannot be read is shown as such, and asked again."""
    before: Scrape | None = None
    found: Figures | None = None
    with (
        contextlib.suppress(KeyboardInterrupt),
        _keys() as pressed,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            problem = ""
            try:
                after = read()
                if before is not None:
                    found = figures(before, after)
                    screen.note(found)
                before = after
            except (OSError, ValueError) as error:
                problem = str(error)
            live.update(screen.draw(found, console.width, problem), refresh=True)
            if pressed(interval):
                return


def _sleep(seconds: float) -> bool:
    """Wait where there are no keys."""
    time.sleep(seconds)
    return False


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Give a function that waits so many seconds, and says whether a key that quits was pressed meanwhile."""
    if not sys.stdin.isatty() or sys.platform == "win32":
        yield _sleep
        return
    import termios  # noqa: PLC0415  (not on Windows)
    import tty  # noqa: PLC0415

    source = sys.stdin.fileno()
    usual = termios.tcgetattr(source)

    def pressed(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([source], [], [], left)
            if ready and ((keys := os.read(source, 64).decode(errors="replace")) == "" or QUITS & set(keys)):
                return True
        return False

    try:
        tty.setcbreak(source)  # keys come at once and unseen; Ctrl-C interrupts as ever
        yield pressed
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, usual)
