"""Runtime: engines and contexts that check what they are given and let ONNX Runtime do the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from . import _world
from ._build import read_plan
from ._execute import Executable, run_on_pointers
from ._parse import _Parser, with_weights
from ._values import (
    DataType,
    ExecutionContextAllocationStrategy,
    ILogger,
    TensorIOMode,
    TensorLocation,
)
from ._world import Reporter

_TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
}
_BUSY: dict[int, int] = {}  # scratch memory: the stream that works in it


class Runtime(Reporter):
    def __init__(self, logger: ILogger) -> None:
        super().__init__(logger)
        if self.fails("__init__"):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if self.fails("deserialize_cuda_engine"):
            return None
        plan = read_plan(serialized_engine)
        if isinstance(plan, str):
            self.report(plan)
            return None
        return ICudaEngine(self._logger, plan)


class ICudaEngine(Reporter):
    def __init__(self, logger: ILogger, plan: dict[str, Any]) -> None:
        super().__init__(logger)
        self.plan, self.model = plan, onnx.load_model_from_string(plan["model"])
        self.executable = None if plan.get("stripped") else Executable(plan["model"])
        graph = self.model.graph
        self.inputs, self.outputs = ({v.name: v for v in values} for values in (graph.input, graph.output))
        scatters = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "TensorScatter"}
        self.aliases = {name: scatters[name] for name in self.outputs if name in scatters}

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.plan["profiles"])

    @property
    def device_memory_size_v2(self) -> int:
        return int(self.plan["scratch"])

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[(self.inputs | self.outputs)[name].type.tensor_type.elem_type]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return None if self.fails("get_aliased_input_tensor") else self.aliases.get(name)

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext | None:
        if self.fails("create_execution_context"):
            return None
        if not self.require(self.executable is not None, "the engine has no weights: refit it"):
            return None
        return IExecutionContext(self, strategy)


class Refitter(Reporter):
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        super().__init__(logger)
        self._engine = engine
        self.model: onnx.ModelProto | None = None
        self.parser: _Parser | None = None

    def get_missing_weights(self) -> list[str]:
        return ["layers.0.q_proj"] if self.fails("get_missing_weights") else []

    def refit_cuda_engine(self) -> bool:
        if self.fails("refit_cuda_engine"):
            return False
        if self.model is None or self.parser is None:
            return self.require(False, "no weights")
        if self.model != self._engine.model:
            return self.require(False, "the graph is another one")
        whole = with_weights(self.model, self.parser.pointers)
        self._engine.executable = Executable(whole.SerializeToString())
        return True


class IExecutionContext(Reporter):
    def __init__(self, engine: ICudaEngine, strategy: ExecutionContextAllocationStrategy) -> None:
        super().__init__(engine._logger)
        self._engine, self._strategy = engine, strategy
        self._profile = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._changes = 0  # calls of set_*
        self._ran = -1  # changes at the last plain run

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self._strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        self._scratch, self._changes = (memory, size), self._changes + 1

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if self.fails("set_optimization_profile_async"):
            return False
        if not self.require(profile_index < self._engine.num_optimization_profiles, "no such profile"):
            return False

        def switch() -> None:
            self._profile = profile_index

        _world.STREAMS[stream_handle].put(switch)
        self._changes += 1
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self.fails("set_input_shape"):
            return False
        if not self.require(self._profile >= 0, "set_input_shape before the profile is there"):
            return False
        if not self.require(name in self._engine.inputs, f"{name} is no input"):
            return False
        least, _, most = self._engine.plan["profiles"][self._profile][name]
        fine = len(shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        if not self.require(fine, f"{name}: {shape} is not within the profile's {least} to {most}"):
            return False
        self._shapes[name], self._changes = tuple(shape), self._changes + 1
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self.fails("set_tensor_address"):
            return False
        fine = self.require(name in self._engine.inputs | self._engine.outputs, f"no tensor {name}")
        fine = fine and self.require(
            memory != 0 and memory % 256 == 0, f"{name}: {memory:#x} is not aligned to 256 bytes"
        )
        if fine:
            self._addresses[name], self._changes = memory, self._changes + 1
        return fine

    def infer_shapes(self) -> list[str]:
        if self.fails("infer_shapes"):
            return ["positions"]
        return [name for name in self._engine.inputs if name not in self._shapes]

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.fails("execute_async_v3"):
            return False
        stream = _world.STREAMS.get(stream_handle)
        if not self.require(stream is not None and stream_handle != 0, "not a stream, or the default one"):
            return False
        assert stream is not None
        if not self._ready(stream_handle):
            return False
        if stream.recording is not None:
            if not self.require(self._ran == self._changes, "recorded before a plain run with these shapes"):
                return False
        else:
            self._ran = self._changes
        stream.put(self._work(stream_handle))
        return True

    def _ready(self, stream_handle: int) -> bool:
        engine = self._engine
        fine = self.require(not self.infer_shapes(), f"no shape: {self.infer_shapes()}")
        absent = [n for n in engine.inputs | engine.outputs if n not in self._addresses]
        fine = fine and self.require(not absent, f"no address: {absent}")
        for output, source in engine.aliases.items():
            one = fine and self._addresses[output] == self._addresses[source]
            fine = fine and self.require(one, f"{output} is not at the address of {source}")
        if self._strategy == ExecutionContextAllocationStrategy.USER_MANAGED:
            address, size = self._scratch
            fine = fine and self.require(address != 0 and address % 256 == 0, "no scratch memory")
            fine = fine and self.require(size >= engine.device_memory_size_v2, "too little scratch memory")
            owner = _BUSY.get(address, stream_handle)
            alone = owner == stream_handle or not _world.STREAMS[owner].pending
            fine = fine and self.require(alone, "two streams in one scratch memory")
        return fine

    def _work(self, stream_handle: int) -> Callable[[], None]:
        """What the stream will do: run on the addresses and shapes of now."""
        scratch, changes = self._scratch[0], self._changes
        _BUSY[scratch] = stream_handle
        assert self._engine.executable is not None
        execute = run_on_pointers(self._engine.executable, self._engine.model, self._shapes, self._addresses)

        def work() -> None:
            assert self._changes == changes or not recorded, "a recording is replayed, but its context was changed"
            execute()
            _BUSY.pop(scratch, None)

        recorded = _world.STREAMS[stream_handle].recording is not None
        return work
