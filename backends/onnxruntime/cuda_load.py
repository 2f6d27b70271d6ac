"""Load a runner on a CUDA device. It has not yet run on one: none was at hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...core.batch import Batch
from ...core.checkpoint import Checkpoint
from ...core.fast_sampler import FastSampler
from ...core.interfaces import Logits, ModelRunner, RunnerConfig
from . import sizes
from .backend import make_form, make_graph, make_runner
from .bindings import Window, WindowBinding
from .cuda import PROVIDER, RECORDED, TorchRows, find_device, provider_options, require_kernels, require_provider
from .options import Options
from .paged import PagedRunner, TorchBlocks
from .recording import RecordedWindow, Recorder
from .session import open_session, weight_bytes


class OnStream:
    """A runner each of whose steps is put on one stream, whichever is current: a draft model's runner has another."""

    def __init__(self, runner: ModelRunner, stream: Callable[[], AbstractContextManager[Any]]) -> None:
        self._runner, self._stream = runner, stream
        self.info, self.sampler = runner.info, runner.sampler

    def forward(self, batch: Batch) -> Logits:
        """See ModelRunner. Copies of rows, of what feeds a run and of its logits go to the stream that it runs on."""
        with self._stream():
            return self._runner.forward(batch)

    def close(self) -> None:
        """See ModelRunner."""
        with self._stream():
            self._runner.close()


def load_on_cuda(checkpoint: Checkpoint, config: RunnerConfig, options: Options) -> OnStream:
    """Load a runner whose weights and rows lie on the device; logits come back to the host, where they are sampled."""
    device = find_device("cuda" if config.device == "auto" else config.device)
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        runner = _load(checkpoint, config, options, device, stream.cuda_stream)
    return OnStream(runner, partial(torch.cuda.stream, stream))


def _load(
    checkpoint: Checkpoint, config: RunnerConfig, options: Options, device: torch.device, stream: int
) -> ModelRunner:
    dtype = resolve_dtype(config.dtype, checkpoint.dtype)
    max_model_len = checkpoint.spec.resolve_max_model_len(config.max_model_len)
    kv_dtype = dtype if config.kv_cache_dtype == "auto" else config.kv_cache_dtype
    shape = sizes.row_shape(checkpoint, max_model_len, kv_dtype)
    free, _ = torch.cuda.mem_get_info(device)  # where weights and rows will lie: the host only passes weights on
    info = sizes.plan(checkpoint, config, dtype=dtype, device=str(device), shape=shape, free=free)
    graph = make_graph(checkpoint, config, options, device="cuda", dtype=dtype, kv_dtype=kv_dtype)
    graphs = options.cuda_graphs and graph.options.attention == "gqa"
    session = open_session(
        checkpoint,
        graph,
        options,
        num_threads=config.num_threads,
        providers=[(PROVIDER, provider_options(device.index, stream, graphs=graphs))],
        config=RECORDED,
    )
    require_provider(session)
    require_kernels(session)
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
