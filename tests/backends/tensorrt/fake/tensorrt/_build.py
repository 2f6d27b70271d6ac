"""Builder: a network, its configuration and profiles, made into a plan (a pickle with the weights inside)."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from typing import Any

import onnx

from . import _world
from ._parse import OnnxParser, with_weights
from ._values import (
    BuilderFlag,
    Dims,
    IHostMemory,
    ILogger,
    IProgressMonitor,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
)
from ._world import Reporter

MAGIC = b"fake plan\n"
TIMINGS = b"timings of "


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED), "not strongly typed on version 10"
        self.model: onnx.ModelProto | None = None
        self.parser: OnnxParser | None = None


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Dims, Dims, Dims]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
            raise ValueError(f"{input}: shapes do not rise")
        self.shapes[input] = (Dims(min), Dims(opt), Dims(max))


class ITimingCache:
    def __init__(self, target: str, data: bytes) -> None:
        self.target, self.known = target, set(data.split(b"\n")[1:])

    def serialize(self) -> IHostMemory | None:
        return IHostMemory(b"\n".join([TIMINGS + self.target.encode(), *sorted(self.known)]))


class IBuilderConfig(Reporter):
    def __init__(self, logger: ILogger) -> None:
        super().__init__(logger)
        self.flags = {BuilderFlag.TF32}
        self.builder_optimization_level = 3
        self.max_aux_streams = 7
        self.progress_monitor: IProgressMonitor | None = None
        self.profiles: list[IOptimizationProfile] = []
        self.timing_cache: ITimingCache | None = None
        self.workspace = -1

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert pool == MemoryPoolType.WORKSPACE
        self.workspace = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self.flags

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(_target(), bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if self.fails("set_timing_cache"):
            return False
        self.timing_cache = cache
        return True

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if self.fails("add_optimization_profile"):
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Builder(Reporter):
    def __init__(self, logger: ILogger) -> None:
        super().__init__(logger)
        if self.fails("__init__"):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if self.fails("build_serialized_network"):
            return None
        model, parser = network.model, network.parser
        if not self.require(model is not None and parser is not None, "the network is empty"):
            return None
        assert model is not None
        assert parser is not None
        if not self._check(model, config) or not self._work(config.progress_monitor):
            return None
        plan = {
            "model": with_weights(model, parser.pointers).SerializeToString(),
            "profiles": [profile.shapes for profile in config.profiles],
            "scratch": 4096 * (1 + len(config.profiles)),
            "target": _target(),
        }
        if BuilderFlag.STRIP_PLAN in config.flags:
            plan |= {"model": model.SerializeToString(), "stripped": True}
        return IHostMemory(MAGIC + pickle.dumps(plan))

    def _check(self, model: onnx.ModelProto, config: IBuilderConfig) -> bool:
        """What a build of ours must have set up, and that the profiles cover every input."""
        fine = self.require(BuilderFlag.TF32 not in config.flags, "TF32 is on")
        fine &= self.require(config.max_aux_streams == 0, "auxiliary streams")
        fine &= self.require(config.workspace > 0, "no workspace limit")
        names = {value.name for value in model.graph.input}
        for profile in config.profiles:
            fine &= self.require(set(profile.shapes) == names, f"profile lacks {names ^ set(profile.shapes)}")
        fine &= self.require(len(config.profiles) > 0, "no profile")
        kernel = hashlib.sha256(model.SerializeToString()).hexdigest().encode()
        if config.timing_cache is not None:
            strict = BuilderFlag.ERROR_ON_TIMING_CACHE_MISS in config.flags
            fine &= self.require(
                not strict or kernel in config.timing_cache.known, "a kernel is not in the timing cache"
            )
            config.timing_cache.known.add(kernel)
        else:
            fine &= self.require(BuilderFlag.DISABLE_TIMING_CACHE in config.flags, "no timing cache")
        return fine

    @staticmethod
    def _work(monitor: IProgressMonitor | None) -> bool:
        if monitor is None:
            return True
        assert getattr(monitor, "_initialised", False), "IProgressMonitor.__init__ was not called"
        monitor.phase_start("Building Engine", None, 2)
        alive = True

        def step(phase: str, number: int) -> None:
            nonlocal alive
            if alive:
                _world.CALLS.append("IProgressMonitor.step_complete")
                alive = monitor.step_complete(phase, number)

        for number, phase in enumerate(("Optimizing", "Timing")):
            monitor.phase_start(phase, "Building Engine", 4)
            for part in range(4):
                step(phase, part)
            monitor.phase_finish(phase)
            step("Building Engine", number)
        monitor.phase_finish("Building Engine")
        return alive


def _target() -> str:
    import tensorrt

    return f"{_world.GPU} {tensorrt.__version__}"


def read_plan(plan: bytes) -> dict[str, Any] | str:
    """Unpack a plan, or say what is wrong with it."""
    if not bytes(plan).startswith(MAGIC):
        return "Serialization assertion plan->header.magicTag == rt::kPLAN_MAGIC_TAG failed"
    contents: dict[str, Any] = pickle.loads(bytes(plan)[len(MAGIC) :])
    if contents["target"] != _target():
        return "The engine plan file is not compatible with this version of TensorRT: version tag does not match"
    return contents
