"""What stands behind the fake: a GPU without kernels, streams that work when they are waited for, faults on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._values import ErrorCodeTRT, ILogger

GPU = "Fake GPU, compute capability 9.0"

STREAMS: dict[int, Stream] = {}  # handle: stream
ALLOCATIONS: dict[int, int] = {}  # address: bytes
FAULTS: dict[str, str] = {}  # "Class.method": what it reports as it fails; "recorder: ..." to the recorder alone
CALLS: list[str] = []  # methods that matter, in the order of their calls


class Stream:
    """Work in order, done when somebody waits, or recorded and not done."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.pending: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        STREAMS[handle] = self

    def put(self, work: Callable[[], None]) -> None:
        (self.pending if self.recording is None else self.recording).append(work)

    def synchronize(self) -> None:
        assert self.recording is None, "waiting for a stream that is being recorded"
        while self.pending:
            self.pending.pop(0)()


class Reporter:
    """An object with a logger and, maybe, an error recorder."""

    error_recorder: Any = None

    def __init__(self, logger: ILogger) -> None:
        assert getattr(logger, "_initialised", False), "ILogger.__init__ was not called"
        self._logger = logger

    def report(self, message: str) -> None:
        """Tell the recorder and the logger, as TensorRT does."""
        words = message.removeprefix("recorder: ")
        if self.error_recorder is not None:
            assert getattr(self.error_recorder, "_initialised", False), "IErrorRecorder.__init__ was not called"
            self.error_recorder.report_error(ErrorCodeTRT.INVALID_ARGUMENT, words)
        if words == message:
            self._logger.log(ILogger.Severity.ERROR, message)

    def fails(self, method: str) -> bool:
        """Note the call, and whether it is to fail."""
        name = f"{type(self).__name__}.{method}"
        CALLS.append(name)
        if name in FAULTS:
            self.report(FAULTS[name])
            return True
        return False

    def require(self, fine: bool, message: str) -> bool:
        """Report the message unless all is fine."""
        if not fine:
            self.report(message)
        return fine


def inside_an_allocation(address: int, num_bytes: int) -> bool:
    """Whether so many bytes from there on are somebody's memory."""
    return any(start <= address and address + num_bytes <= start + size for start, size in ALLOCATIONS.items())


def reset() -> None:
    """Forget faults and calls, and work that nobody waited for."""
    for stream in STREAMS.values():
        stream.pending.clear()
    FAULTS.clear()
    CALLS.clear()
