"""isotoken's own log on stderr: written a few times a second however many lines there are, at once from warnings up."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from typing import TextIO

from ..safety.log_privacy import SecretScrubber

DELAY_S = 0.1
MAX_LINES = 1000  # held, at most
FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class HeldHandler(logging.Handler):
    """Holds lines for a moment and writes them together: a write for each would cost as much as a short answer."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []
        self._wanted = threading.Event()
        self.setFormatter(_Formatter(FORMAT))
        self.addFilter(SecretScrubber())
        threading.Thread(target=self._write_now_and_then, name="isotoken-log", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line. A stream that cannot be written to is no concern of whoever logs."""
        try:
            self._lines.append(self.format(record) + "\n")
            if record.levelno >= logging.WARNING or len(self._lines) >= MAX_LINES:
                self._write()
            elif len(self._lines) == 1:
                self._wanted.set()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what is held, or lose it where the stream is broken."""
        try:
            self._write()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": "lines held for a moment could not be written"}))

    def _write(self) -> None:
        with self.lock or threading.RLock():
            lines, self._lines = self._lines, []
            if lines:
                self._stream.write("".join(lines))
                self._stream.flush()

    def _write_now_and_then(self) -> None:
        while True:
            self._wanted.wait()
            time.sleep(DELAY_S)
            self._wanted.clear()
            self.flush()


class _Formatter(logging.Formatter):
    """Works out the time of day once a second."""

    _second = -1
    _text = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second = int(record.created)
        if second != self._second:
            self._second, self._text = second, time.strftime(self.default_time_format, time.localtime(second))
        return f"{self._text},{int(record.msecs):03d}"


def log_to_stderr(level: str, stream: TextIO) -> None:
    """Show isotoken's own log: at "info" one line for each finished request, with its reason."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # nobody shows them
    logger = logging.getLogger("isotoken")
    logger.addHandler(HeldHandler(stream))
    logger.setLevel(level.upper())
    logger.propagate = False
