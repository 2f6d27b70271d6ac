"""A stand-in for TensorRT's Python bindings, for tests: ONNX Runtime executes the graph on the raw pointers.

It has the names, signatures and return values that the backend uses (tests/typings holds it to them), does its work on
a stream only when somebody waits for that stream, and refuses whatever TensorRT would refuse or silently get wrong.
"""

from __future__ import annotations

from ._build import Builder, IBuilderConfig, INetworkDefinition, IOptimizationProfile, ITimingCache
from ._parse import OnnxParser, OnnxParserRefitter, ParserError
from ._run import ICudaEngine, IExecutionContext, Refitter, Runtime
from ._values import (
    BuilderFlag,
    DataType,
    Dims,
    ErrorCode,
    ErrorCodeTRT,
    ExecutionContextAllocationStrategy,
    IErrorRecorder,
    IHostMemory,
    ILogger,
    IProgressMonitor,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    TensorIOMode,
    TensorLocation,
)

__version__ = "11.4.0.106"

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "Dims",
    "ErrorCode",
    "ErrorCodeTRT",
    "ExecutionContextAllocationStrategy",
    "IBuilderConfig",
    "ICudaEngine",
    "IErrorRecorder",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITimingCache",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserRefitter",
    "ParserError",
    "Refitter",
    "Runtime",
    "TensorIOMode",
    "TensorLocation",
]
