"""The server's log: lines are written together, and none is lost or late where it matters."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from isotoken.api.cli.log import MAX_LINES, HeldHandler


class Watched(io.StringIO):
    """Counts writes, and says when there was one."""

    def __init__(self) -> None:
        super().__init__()
        self.num_writes = 0
        self.written = threading.Event()

    def write(self, text: str) -> int:
        self.num_writes += 1
        result = super().write(text)
        self.written.set()
        return result


@pytest.fixture
def stream() -> Watched:
    return Watched()


@pytest.fixture
def logger(stream: Watched) -> Iterator[logging.Logger]:
    logger = logging.Logger("isotoken.test")
    logger.addHandler(HeldHandler(stream))
    yield logger


def test_lines_are_written_together_and_soon(logger: logging.Logger, stream: Watched) -> None:
    for number in range(50):
        logger.info("line %d", number)
    assert stream.written.wait(30)
    while (found := stream.getvalue()).count("\n") < 50:
        stream.written.clear()
        assert stream.written.wait(30)
    assert re.findall(r"line (\d+)\n", found) == [str(number) for number in range(50)]
    assert stream.num_writes <= 25, "each line costs a write"
    for line in found.splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO isotoken.test line \d+", line)
    stream.written.clear()
    logger.info("one more")
    assert stream.written.wait(30), "a single line waits for a second"


def test_warnings_and_what_came_before_are_written_at_once(logger: logging.Logger, stream: Watched) -> None:
    logger.info("before")
    logger.warning("it burns: %s", "x")
    assert [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()] == [
        "INFO isotoken.test before",
        "WARNING isotoken.test it burns: x",
    ]
    try:
        raise KeyError("why")
    except KeyError:
        logger.exception("it failed")
    assert "KeyError: 'why'" in stream.getvalue()


def test_not_more_than_so_many_are_held(logger: logging.Logger, stream: Watched) -> None:
    for _ in range(MAX_LINES):
        logger.info("x")
    assert stream.getvalue().count("\n") == MAX_LINES


def test_a_line_that_cannot_be_written_out_ends_nothing(
    logger: logging.Logger, stream: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.info("%d", "no number")
    logger.warning("after")
    assert "after" in stream.getvalue()
    assert "no number" in capsys.readouterr().err


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_stream_that_breaks_for_a_while_ends_neither_requests_nor_the_log(
    logger: logging.Logger, stream: Watched, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    failed, write = threading.Event(), stream.write

    def broken(text: str) -> int:
        failed.set()
        raise BrokenPipeError("nobody reads")

    monkeypatch.setattr(logging, "raiseExceptions", False)  # nor need it be told on what is broken
    monkeypatch.setattr(stream, "write", broken)
    logger.log(level, "lost")
    assert failed.wait(30)
    logger.handlers[0].flush()
    monkeypatch.setattr(stream, "write", write)
    logger.info("the thread is alive")
    assert stream.written.wait(30)
    assert "the thread is alive" in stream.getvalue()


def test_the_last_lines_are_written_at_the_end() -> None:
    program = (
        "import logging, sys; from isotoken.api.cli.log import log_to_stderr; log_to_stderr('info', sys.stderr); "
        "logging.getLogger('isotoken.requests').info('the last word')"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.endswith("INFO isotoken.requests the last word\n")
