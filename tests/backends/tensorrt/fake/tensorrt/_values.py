"""Enumerations, values and the classes that users derive from."""

from __future__ import annotations

import enum
from collections.abc import Iterable


class _Enum(enum.IntEnum):
    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class NetworkDefinitionCreationFlag(_Enum):
    STRONGLY_TYPED = 1


class BuilderFlag(_Enum):
    DEBUG = 2
    TF32 = 7
    DISABLE_TIMING_CACHE = 5
    ERROR_ON_TIMING_CACHE_MISS = 15
    STRIP_PLAN = 20
    REFIT_IDENTICAL = 21


class MemoryPoolType(_Enum):
    WORKSPACE = 0


class DataType(_Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    BF16 = 7
    INT64 = 8


class TensorIOMode(_Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(_Enum):
    DEVICE = 0
    HOST = 1


class ExecutionContextAllocationStrategy(_Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class ErrorCode(_Enum):  # of the parser
    SUCCESS = 0
    INTERNAL_ERROR = 1
    MODEL_DESERIALIZE_FAILED = 3
    INVALID_VALUE = 4
    INVALID_GRAPH = 5
    UNSUPPORTED_NODE = 8
    REFIT_FAILED = 14


class ErrorCodeTRT(_Enum):
    SUCCESS = 0
    UNSPECIFIED_ERROR = 1
    INTERNAL_ERROR = 2
    INVALID_ARGUMENT = 3


class Dims(tuple[int, ...]):
    """Sizes of a tensor; -1: differs from run to run."""

    def __new__(cls, shape: Iterable[int] = ()) -> Dims:
        return super().__new__(cls, tuple(shape))


class _Base:
    """What users derive from: bindings crash when the base was not initialised."""

    def __init__(self) -> None:
        self._initialised = True


class ILogger(_Base):
    class Severity(_Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


class IErrorRecorder(_Base):
    def report_error(self, arg0: ErrorCodeTRT, arg1: str) -> bool:
        raise NotImplementedError


class IProgressMonitor(_Base):
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    """A buffer: memoryview() works on it, as on the real one."""
