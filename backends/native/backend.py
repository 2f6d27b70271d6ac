"""The native backend: what it can do here, and how a runner is put together."""

from __future__ import annotations

import logging
from dataclasses import replace

from ...core.capabilities import Capabilities
from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig
from ...core.quantization import refuse_absent
from ...core.types import Unsupported
from ...kernels.cpu.program import MAX_HEAD_DIM
from ..host_memory import available_bytes, mib
from . import sizes
from .activations import Activations
from .cache import Caches, CacheShape
from .executor import Executor, Library, OpenExecutor, shortcoming
from .memory import Arena
from .options import Options, settle_threads
from .pack_cache import PackCache
from .parts import Parts
from .precision import CACHES, COMPUTE, VERIFY_COSTS, WEIGHT_ONLY_DTYPE, WEIGHTS, Precision
from .rotations import Rotations
from .runner import NativeRunner
from .weights import PackedWeights
from .weights_plan import Plan

WORTH_KEEPING = 16 << 20
"""Bytes of quantised weights below which packing them anew takes no time worth speaking of."""

log = logging.getLogger("isotoken.native")


class NativeBackend:
    """Kernels of our own on the CPU: each sum in one order, whatever the batch and the number of threads."""

    name = "native"
    capabilities = Capabilities(
        dtypes=frozenset(COMPUTE),
        weight_only_dtype=WEIGHT_ONLY_DTYPE,
        devices=frozenset({"cpu"}),
        missing_devices={"cuda": "backend native has kernels for the CPU alone"},
        quantizations=frozenset(WEIGHTS),
        kv_cache_dtypes=frozenset(CACHES),
        batch_invariant=True,
    )

    def __init__(self, open_executor: OpenExecutor = Library) -> None:
        self._open_executor = open_executor
        if open_executor is Library and (why := shortcoming()):
            self.capabilities = replace(self.capabilities, second_choice=why)

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> NativeRunner:
        """Pack the weights and reserve K/V memory.

        Raises Unsupported for what the backend does not do, ValueError for a setting that cannot be met, and both
        before anything big is allocated.
        """
        options = Options.read(config.options)
        _refuse_absent(config, self.capabilities)
        head_dim = checkpoint.spec.head_dim
        if head_dim > MAX_HEAD_DIM:
            raise Unsupported(f"backend native: head_dim is {head_dim}, at most {MAX_HEAD_DIM} is available")
        precision = Precision.read(config, checkpoint.dtype, is_packed=checkpoint.packing is not None)
        info, spec = sizes.limits(checkpoint, config, precision), checkpoint.spec
        plan = Plan(checkpoint, precision)
        activations = Activations(spec, precision, info)
        shape = CacheShape.of(spec, precision, info.block_size)
        logits_bytes = 4 * info.max_num_logits * info.vocab_size
        need = sizes.Need(plan.num_bytes, activations.num_bytes + logits_bytes)
        num_blocks = sizes.count_blocks(info, config, shape, need, available_bytes())
        num_threads, cpus = settle_threads(config.num_threads, options.pin)
        executor = self._open_executor(options, num_threads, cpus)
        try:
            weights = _load_weights(checkpoint, plan, executor, options, precision)
            activations.allocate()
            logits = Arena(logits_bytes)
            parts = Parts(
                spec=spec,
                precision=precision,
                weights=weights,
                activations=activations,
                caches=Caches(shape, num_blocks),
                rotations=Rotations(spec, info.max_model_len),
                logits=logits.address,
            )
            info = replace(
                info,
                num_blocks=num_blocks,
                weight_bytes=weights.num_bytes,
                kv_cache_bytes=num_blocks * shape.block_bytes,
                verify_cost=VERIFY_COSTS[precision.weights],
            )
            log.info("backend native: %s kernels, %d threads", executor.isa, num_threads)
            runner = NativeRunner(info, parts, logits, executor)
            runner.warm_up()
            return runner
        except BaseException:
            executor.close()
            raise


def _refuse_absent(config: RunnerConfig, can: Capabilities) -> None:
    if config.device not in ("auto", "cpu"):
        raise Unsupported(f"backend native runs on the cpu alone, not on {config.device!r}")
    if config.tensor_parallel_size != 1:
        raise Unsupported(
            f"backend native: tensor_parallel_size {config.tensor_parallel_size} is not available; only 1: "
            "num_threads is how one model uses more of the machine"
        )
    refuse_absent("native", can, quantization=config.quantization, kv_cache_dtype=config.kv_cache_dtype)


def _load_weights(
    checkpoint: Checkpoint, plan: Plan, executor: Executor, options: Options, precision: Precision
) -> PackedWeights:
    weights = PackedWeights(checkpoint, plan)
    cache = None
    if options.pack_cache is not None:
        if why := _why_not_kept(checkpoint, plan, precision):
            log.info("backend native: packed weights are not kept: %s", why)
        else:
            cache = PackCache(options.pack_cache, checkpoint, plan)
    weights.fill(checkpoint, executor, cache)
    return weights


def _why_not_kept(checkpoint: Checkpoint, plan: Plan, precision: Precision) -> str:
    if precision.quantization is None:
        return "only those are that are quantised as they are read"
    if plan.num_bytes < WORTH_KEEPING:
        return f"{mib(plan.num_bytes)} are packed in no time, from {mib(WORTH_KEEPING)} on it may pay"
    if (
        type(checkpoint) is not Checkpoint
    ):  # known by its key; a subclass may hand out other weights than the files hold
        return "they may not be those of the files"
    return ""
