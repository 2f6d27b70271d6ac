"""The journal: everything that TensorRT reports, so that a failed call becomes an exception with its reason."""

from __future__ import annotations

import logging
from typing import SupportsInt, TypeVar

import tensorrt as trt

from .errors import TensorRTError, describe

T = TypeVar("T")

log = logging.getLogger("isotoken.tensorrt")

_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,  # dozens of lines for each build
    "VERBOSE": logging.DEBUG,
}
_KEPT = 100  # messages


class Journal(trt.ILogger):
    """TensorRT's logger. It hears errors that no recorder does, such as that an object could not be made at all.

    Every object of TensorRT that is given a journal keeps a pointer to it: keep the journal for as long as these live.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []
        self.recorder = Recorder(self)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Pass a message on to Python's logging and remember errors. Called from any thread; must not raise."""
        level = _LEVELS.get(severity.name, logging.DEBUG)
        log.log(level if level < logging.ERROR else logging.DEBUG, "%s", msg)  # errors are raised, not logged twice
        if level >= logging.ERROR:
            self.add(msg)

    def add(self, message: str) -> None:
        """Remember an error until the next failure is told."""
        if len(self.errors) < _KEPT:
            self.errors.append(message)

    def failure(self, what: str, *more: str) -> TensorRTError:
        """Return the error for a call that could not do `what`, and begin a new page."""
        messages, self.errors = [*more, *self.errors], []
        self.recorder.clear()
        return TensorRTError(describe(what, messages))

    def check(self, done: bool, what: str) -> None:
        """Raise TensorRTError if a call that returns whether it succeeded did not."""
        if not done:
            raise self.failure(what)

    def need(self, made: T | None, what: str) -> T:
        """Return what a call made. Raises TensorRTError if that is nothing."""
        if made is None:
            raise self.failure(what)
        return made


class Recorder(trt.IErrorRecorder):
    """TensorRT's list of errors, which it both fills and reads."""

    def __init__(self, journal: Journal) -> None:
        trt.IErrorRecorder.__init__(self)
        self._journal = journal
        self._errors: list[tuple[trt.ErrorCodeTRT, str]] = []

    def num_errors(self) -> int:
        """How many errors are remembered."""
        return len(self._errors)

    def get_error_code(self, arg0: SupportsInt) -> trt.ErrorCodeTRT:
        """The code of one error."""
        return self._errors[int(arg0)][0]

    def get_error_desc(self, arg0: SupportsInt) -> str:
        """The words of one error."""
        return self._errors[int(arg0)][1]

    def has_overflowed(self) -> bool:
        """Whether errors were dropped."""
        return len(self._errors) >= _KEPT

    def clear(self) -> None:
        """Forget all."""
        self._errors.clear()

    def report_error(self, arg0: trt.ErrorCodeTRT, arg1: str) -> bool:
        """Remember an error; True would say that nothing can go on after it."""
        if len(self._errors) < _KEPT:
            self._errors.append((arg0, arg1))
        self._journal.add(arg1)
        return False
