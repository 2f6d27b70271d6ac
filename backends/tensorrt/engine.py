"""A loaded engine: its tensors, checked against the graph that it was built from, and contexts that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorrt as trt

from ...core.types import EngineError
from ..onnx_graph import Graph, Port
from .builder import parser_errors
from .device import ALIGNMENT, Device
from .journal import Journal
from .profiles import Profile
from .weights import Pointers

DTYPES = {
    "float32": trt.DataType.FLOAT,
    "float16": trt.DataType.HALF,
    "bfloat16": trt.DataType.BF16,
    "int32": trt.DataType.INT32,
    "int64": trt.DataType.INT64,
}

Binding = Mapping[str, tuple[int, Sequence[int]]]
"""Tensor name -> (address, shape); the shape of outputs follows from those of the inputs."""


class Engine:
    """An engine on a device. All its contexts share one piece of scratch memory, so one runs at a time."""

    def __init__(self, journal: Journal, device: Device, plan: bytes) -> None:
        try:
            runtime = trt.Runtime(journal)
        except TypeError as error:
            raise journal.failure("make a runtime", str(error)) from error
        runtime.error_recorder = journal.recorder
        # Given up in this order: an engine may not outlive its runtime, nor that its journal.
        self._engine = journal.need(runtime.deserialize_cuda_engine(plan), "load the engine")
        self._engine.error_recorder = journal.recorder
        self._runtime, self._journal, self._device = runtime, journal, device
        size = self._engine.device_memory_size_v2
        self._scratch = device.allocate(size, "the scratch memory of the engine") if size else None

    def refit(self, graph: Graph, model: bytes) -> None:
        """Put the weights into an engine that was built without them."""
        refitter = trt.Refitter(self._engine, self._journal)
        refitter.error_recorder = self._journal.recorder
        parser = trt.OnnxParserRefitter(refitter, self._journal)
        pointers = Pointers(graph)  # until the engine is refitted
        done = parser.load_model_proto(model)
        for name, address, num_bytes in pointers if done else ():
            if not parser.load_initializer(name, address, num_bytes):
                raise self._journal.failure(f"take the weight {name!r} ({num_bytes} bytes)", *parser_errors(parser))
        if not done or not parser.refit_model_proto():
            raise self._journal.failure("read the weights of the graph", *parser_errors(parser))
        if missing := refitter.get_missing_weights():
            raise self._journal.failure("refit the engine", f"weights without a value: {', '.join(missing[:8])}")
        self._journal.check(refitter.refit_cuda_engine(), "refit the engine")

    def check(self, graph: Graph, profiles: Sequence[Profile]) -> None:
        """Hold the engine to the graph: its tensors, their dtypes, the caches updated in place, and its profiles."""
        found = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        due = {port.name for port in (*graph.inputs, *graph.outputs)}
        if found != due:
            raise self._journal.failure("use the engine", f"its tensors differ from the graph's: {sorted(found ^ due)}")
        for port, mode in _with_mode(graph):
            self._check_port(port, mode)
        for port in graph.outputs:
            if not port.name.startswith("present_"):
                continue
            twin, cache = self._engine.get_aliased_input_tensor(port.name), past_of(port.name)
            if twin != cache:
                raise self._journal.failure(
                    "use the engine", f"{port.name} is not written in place of {cache} but of {twin}"
                )
        if self._engine.num_optimization_profiles != len(profiles):
            raise self._journal.failure(
                "use the engine", f"it has {self._engine.num_optimization_profiles} profiles instead of {len(profiles)}"
            )

    def _check_port(self, port: Port, mode: trt.TensorIOMode) -> None:
        engine = self._engine
        if engine.get_tensor_mode(port.name) != mode or engine.get_tensor_dtype(port.name) != DTYPES[port.dtype]:
            raise self._journal.failure(
                "use the engine",
                f"{port.name} is {engine.get_tensor_mode(port.name).name} of {engine.get_tensor_dtype(port.name).name} "
                f"instead of {mode.name} of {port.dtype}",
            )
        if engine.get_tensor_location(port.name) != trt.TensorLocation.DEVICE:
            raise self._journal.failure("use the engine", f"{port.name} is not in device memory")

    def context(self, profile: int) -> Context:
        """Make a context for one profile."""
        made = self._journal.need(
            self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED),
            "make an execution context",
        )
        made.error_recorder = self._journal.recorder
        if self._scratch is not None:
            made.set_device_memory(self._scratch.address, self._scratch.num_bytes)
        stream = self._device.stream
        self._journal.check(made.set_optimization_profile_async(profile, stream), f"choose the profile {profile}")
        self._device.synchronize()  # the choice is made on the stream, and shapes may be set only after it
        return Context(self._journal, self._device, made)


class Context:
    """Runs an engine with one profile."""

    def __init__(self, journal: Journal, device: Device, context: trt.IExecutionContext) -> None:
        self._journal, self._device, self._context = journal, device, context

    def bind(self, inputs: Binding, outputs: Mapping[str, int]) -> None:
        """Set every shape and address; outputs that stand for a cache get the address of their input."""
        for name, (address, shape) in inputs.items():
            self._check_address(name, address)
            if not self._context.set_input_shape(name, tuple(shape)):
                raise self._journal.failure(f"set the shape of {name} to {tuple(shape)}")
            self._journal.check(self._context.set_tensor_address(name, address), f"set the address of {name}")
        for name, address in outputs.items():
            self._check_address(name, address)
            self._journal.check(self._context.set_tensor_address(name, address), f"set the address of {name}")
        if missing := self._context.infer_shapes():
            raise self._journal.failure("infer shapes", f"not set: {', '.join(missing)}")

    def run(self) -> None:
        """Put one run on the stream. Raises EngineError when the GPU cannot be used any more."""
        if self._context.execute_async_v3(self._device.stream):
            return
        error = self._journal.failure("run the engine")
        if "must be started again" in str(error):
            raise EngineError(str(error)) from error
        raise error

    @staticmethod
    def _check_address(name: str, address: int) -> None:
        if address % ALIGNMENT:
            raise ValueError(f"backend tensorrt: the address of {name} is not a multiple of {ALIGNMENT}")


def past_of(name: str) -> str:
    """Return the cache input that a cache output stands for."""
    return "past_" + name.removeprefix("present_")


def _with_mode(graph: Graph) -> list[tuple[Port, trt.TensorIOMode]]:
    inputs = [(port, trt.TensorIOMode.INPUT) for port in graph.inputs]
    return inputs + [(port, trt.TensorIOMode.OUTPUT) for port in graph.outputs]
