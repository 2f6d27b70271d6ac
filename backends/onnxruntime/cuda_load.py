"""Load a runner on a CUDA device. It has not yet run on one: none was at hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...core.checkpoint import Checkpoint
from ...core.fast_sampler import FastSampler
from ...core.interfaces import RunnerConfig
from . import sizes
from .backend import make_form, make_graph, make_runner
from .bindings import Window, WindowBinding
from .cuda import PROVIDER, TorchRows, find_device, provider_options, require_provider
from .memory import available_bytes
from .options import Options
from .paged import PagedRunner, TorchBlocks
from .recording import RecordedWindow, Recorder
from .runner import OnnxRuntimeRunner
from .session import open_session, weight_bytes


def load_on_cuda(checkpoint: Checkpoint, config: RunnerConfig, options: Options) -> OnnxRuntimeRunner | PagedRunner:
    """Load a runner whose weights and rows lie on the device; logits come back to the host, where they are sampled."""
    device = find_device("cuda" if config.device == "auto" else config.device)
    dtype = resolve_dtype(config.dtype, checkpoint.dtype)
    max_model_len = checkpoint.spec.resolve_max_model_len(config.max_model_len)
    kv_dtype = dtype if config.kv_cache_dtype == "auto" else config.kv_cache_dtype
    shape = sizes.row_shape(checkpoint, max_model_len, kv_dtype)
    free, _ = torch.cuda.mem_get_info(device)
    info = sizes.plan(
        checkpoint, config, dtype=dtype, device=str(device), shape=shape, free=min(free, available_bytes())
    )
    graph = make_graph(checkpoint, config, options, device="cuda", dtype=dtype, kv_dtype=kv_dtype)
    stream = torch.cuda.Stream(device)
    torch.cuda.set_stream(stream)  # this thread's: what feeds a run is copied on the stream that it runs on
    graphs = options.cuda_graphs and graph.options.attention == "gqa"
    session = open_session(
        checkpoint,
        graph,
        options,
        num_threads=config.num_threads,
        providers=[(PROVIDER, provider_options(device.index, stream.cuda_stream, graphs=graphs))],
    )
    require_provider(session)
    if options.attention == "paged":
        info, shape = sizes.in_blocks(info, shape, config)
        blocks = TorchBlocks(shape, info.num_blocks, kv_dtype, device)
        return PagedRunner(session, blocks, replace(info, weight_bytes=weight_bytes(graph)), sampler=FastSampler())
    rows = TorchRows(shape, info.num_blocks, kv_dtype, device)
    form, recorder = make_form(graph, max_model_len), Recorder()

    def bind(first: int, count: int) -> Window:
        if graphs:
            return RecordedWindow(session, rows, form, first, count, max_model_len=max_model_len, recorder=recorder)
        return WindowBinding(session, rows, form, first, count)

    return make_runner(checkpoint, graph, info, rows, bind)


def resolve_dtype(wanted: str, stored: str) -> str:
    """Return the compute dtype: the stored one for "auto"."""
    return stored if wanted == "auto" else wanted
