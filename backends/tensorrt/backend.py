"""The tensorrt backend: what it can do here, and how an engine comes to be built, kept and loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ...core.capabilities import Capabilities, not_implemented, unsupported
from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig, RunnerInfo
from ..rows import num_rows
from .builder import build, check_version
from .design import ITEMSIZES, QUANTIZATIONS, Design, make_design
from .device import Device, open_device
from .engine import Engine
from .journal import Journal
from .options import Options
from .progress import OnProgress
from .runner import TensorRTRunner
from .store import Store

log = logging.getLogger("isotoken.tensorrt")


class TensorRTBackend:
    """TensorRT on NVIDIA GPUs. No engine has been built or run with it yet: no GPU was at hand."""

    name = "tensorrt"

    def __init__(self, open_device: Callable[[str], Device] = open_device) -> None:
        check_version()
        self._open_device = open_device
        self.capabilities = Capabilities(
            dtypes=frozenset(ITEMSIZES),
            devices=frozenset({"cuda"}),
            quantizations=frozenset(QUANTIZATIONS),
            prefix_caching=unsupported(
                "TensorRT writes keys and values in place, into one row of memory for each request, so no block can "
                "stand in two tables; prefixes are copied from row to row instead (kv_cache contiguous)"
            ),
            batch_invariant=not_implemented(
                "TensorRT picks kernels by the shapes of a profile, and a decode and a prompt have different ones"
            ),
        )

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> TensorRTRunner:
        """Take the engine from the cache or build it, which takes minutes, and set up K/V memory.

        Raises Unsupported for what the backend does not do, ValueError for a setting that cannot be met, and
        TensorRTError with what TensorRT says.
        """
        device = self._open_device(config.device)
        with device.active():
            design = make_design(checkpoint, config, device, self.capabilities)
            _rows_that_fit(design, device, beside=checkpoint.num_bytes)  # else the minutes of a build would be lost
            journal = Journal()
            store = _store(design.options)
            plan = store.load(design.key) if store is not None else None
            if plan is None:
                plan = _build(journal, design, store, _log_progress)
            engine = Engine(journal, device, plan)
            if design.options.refit:
                engine.refit(design.graph, design.model)
            engine.check(design.graph, design.profiles)
            rows = _rows_that_fit(design, device)
            info = RunnerInfo(
                vocab_size=checkpoint.spec.vocab_size,
                eos_token_ids=checkpoint.eos_token_ids,
                max_model_len=design.max_model_len,
                max_num_seqs=config.max_num_seqs,
                max_num_batched_tokens=config.max_num_batched_tokens,
                max_num_logits=design.max_num_logits,
                block_size=design.max_model_len,
                num_blocks=rows,
                dtype=design.dtype,
                device=device.name,
                asynchronous=True,
                weight_bytes=checkpoint.num_bytes,
                kv_cache_bytes=design.cache_shape(rows).num_bytes,
            )
            return TensorRTRunner(design, device, engine, info)

    def build(self, checkpoint: Checkpoint, config: RunnerConfig, on_progress: OnProgress) -> Path:
        """Build the engine that load() would, unless it is there, and return where it is kept. See AheadOfTime."""
        device = self._open_device(config.device)
        with device.active():
            design = make_design(checkpoint, config, device, self.capabilities)
            store = _store(design.options)
            if store is None:
                raise ValueError(
                    "backend tensorrt: with the option engine_cache=off there is nowhere to keep an engine"
                )
            if store.load(design.key) is None:
                _build(Journal(), design, store, on_progress)
            return store.path(design.key)


def _store(options: Options) -> Store | None:
    return None if options.engine_cache is None else Store(options.engine_cache)


def _build(journal: Journal, design: Design, store: Store | None, on_progress: OnProgress) -> bytes:
    log.warning(
        "backend tensorrt: building an engine for %s on %s, which takes minutes%s",
        design.checkpoint.path.name, design.target, "" if store is None else f"; it is kept in {store.folder}",
    )  # fmt: skip
    timings = b"" if store is None else store.load_timings(design.target)
    made = build(
        journal, design.graph, design.model, design.profiles, design.options, timings=timings, on_progress=on_progress
    )
    if store is not None:
        path = store.save(design.key, made.plan)
        if made.timings:
            store.save_timings(design.target, made.timings)
        log.info("backend tensorrt: built %s (%.1f MiB)", path, len(made.plan) / 2**20)
    return made.plan


def _rows_that_fit(design: Design, device: Device, *, beside: int = 0) -> int:
    """Return how many rows of K/V there are, `beside` bytes left out.

    Raises ValueError when what is asked for, or one row, does not fit.
    """
    config, row_bytes = design.config, design.cache_shape(1).num_bytes
    free, total = device.free_bytes()
    room = free - int(total * (1 - config.memory_fraction)) - beside
    wanted = num_rows(config, design.max_model_len)
    least = wanted if config.num_blocks else 1
    if room < least * row_bytes:
        raise ValueError(
            f"backend tensorrt: {least} row(s) of {design.max_model_len} tokens need {_gib(least * row_bytes)} of K/V "
            f"cache, and {_gib(max(room, 0))} of {device.name} are left beside the weights: lower max_model_len or "
            "num_blocks, or raise memory_fraction"
        )
    return min(wanted, room // row_bytes)


def _log_progress(phase: str, share: float) -> None:
    log.debug("backend tensorrt: %3.0f %% built (%s)", 100 * share, phase)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
