"""From a graph to an engine: parse, set up, build. One code path for TensorRT 10.15 and later and 11."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorrt as trt

from ...core.types import Unsupported
from ..onnx_graph import Graph
from .journal import Journal
from .options import Options
from .profiles import Profile
from .progress import OnProgress, Progress
from .weights import Pointers

OLDEST = (10, 15)  # the first with cache updates in place, rotary embeddings and RMS norms from ONNX


@dataclass(frozen=True, slots=True)
class Built:
    """What a build brings."""

    plan: bytes  # the serialised engine
    timings: bytes  # the timing cache afterwards


def check_version() -> None:
    """Raise Unsupported for a TensorRT that is too old."""
    major, minor = (int(part) for part in trt.__version__.split(".")[:2])
    if (major, minor) < OLDEST:
        raise Unsupported(
            f"backend tensorrt: TensorRT {trt.__version__} is installed, {OLDEST[0]}.{OLDEST[1]} or later is needed: "
            "pip install --upgrade tensorrt"
        )


def build(
    journal: Journal,
    graph: Graph,
    model: bytes,
    profiles: Sequence[Profile],
    options: Options,
    *,
    timings: bytes = b"",
    on_progress: OnProgress | None = None,
) -> Built:
    """Build an engine of a graph, which is also given as a `model` for TensorRT's parser. Takes minutes.

    Raises Unsupported when TensorRT lacks an operator, TensorRTError for any other failure, and whatever on_progress
    raises to stop it.
    """
    try:
        builder = trt.Builder(journal)
    except TypeError as error:  # how a creation that failed looks from Python
        raise journal.failure("make a builder", str(error)) from error
    builder.error_recorder = journal.recorder
    # Version 10 needs the flag, 11 is always strongly typed and ignores it: dtypes are those that the graph says.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    journal.need(network, "make a network")
    pointers = Pointers(graph)
    parser = trt.OnnxParser(network, journal)  # must live as long as the network
    _parse(parser, journal, model, pointers)
    config = journal.need(builder.create_builder_config(), "make a builder configuration")
    _configure(config, journal, options)
    cache = _start_timings(config, journal, options, timings)
    for profile in profiles:
        _add_profile(builder, config, journal, graph, profile)
    progress = Progress(on_progress) if on_progress is not None else None
    if progress is not None:
        config.progress_monitor = progress
    plan = builder.build_serialized_network(network, config)
    if progress is not None and progress.error is not None:
        raise progress.error
    if plan is None:
        raise journal.failure("build the engine")
    return Built(bytes(memoryview(plan)), _end_timings(cache, journal))


def _parse(parser: trt.OnnxParser, journal: Journal, model: bytes, pointers: Pointers) -> None:
    """Fill the network. The weights are read from where they lie until the engine is built."""
    done = parser.load_model_proto(model)
    for name, address, num_bytes in pointers if done else ():
        if not parser.load_initializer(name, address, num_bytes):
            raise journal.failure(f"take the weight {name!r} ({num_bytes} bytes)", *parser_errors(parser))
    if done and parser.parse_model_proto():
        return
    errors = parser_errors(parser)
    missing = sorted({message for message in errors if _lacks_operator(message)})
    if missing:
        raise Unsupported(
            f"backend tensorrt: TensorRT {trt.__version__} cannot run this model's graph: {'; '.join(missing)}. "
            "A newer TensorRT may know the operator; the backends torch and onnxruntime run the model"
        )
    raise journal.failure("parse the graph", *errors)


def parser_errors(parser: trt.OnnxParser | trt.OnnxParserRefitter) -> list[str]:
    """Return the errors of a parser with the node and operator that each is about."""
    messages = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        place = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else "the graph"
        messages.append(f"{place}: {error.desc()} [{error.code().name}]")
    return messages


def _lacks_operator(message: str) -> bool:
    return "UNSUPPORTED_NODE" in message or "No importer registered" in message or "Plugin not found" in message


def _configure(config: trt.IBuilderConfig, journal: Journal, options: Options) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default: float32 would be float32 in name only
    config.builder_optimization_level = options.optimization_level
    config.max_aux_streams = 0  # all work on one stream, which CUDA graphs and shared scratch memory rely on
    if options.refit:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if options.timing_cache == "strict":
        config.set_flag(trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    journal.check(not config.get_flag(trt.BuilderFlag.TF32), "switch TF32 off")


def _start_timings(
    config: trt.IBuilderConfig, journal: Journal, options: Options, timings: bytes
) -> trt.ITimingCache | None:
    """Give the builder the kernels' timings of earlier builds, so that it is fast and chooses as it did."""
    if options.timing_cache == "off":
        config.set_flag(trt.BuilderFlag.DISABLE_TIMING_CACHE)
        return None
    cache = journal.need(config.create_timing_cache(timings), "read the timing cache")
    journal.check(config.set_timing_cache(cache, False), "use the timing cache")
    return cache


def _end_timings(cache: trt.ITimingCache | None, journal: Journal) -> bytes:
    if cache is None:
        return b""
    return bytes(memoryview(journal.need(cache.serialize(), "write the timing cache")))


def _add_profile(
    builder: trt.Builder, config: trt.IBuilderConfig, journal: Journal, graph: Graph, profile: Profile
) -> None:
    made = journal.need(builder.create_optimization_profile(), f"make the profile {profile.name}")
    for port in graph.inputs:
        made.set_shape(port.name, *profile.shapes(port))
    journal.check(config.add_optimization_profile(made) >= 0, f"use the profile {profile.name}")
