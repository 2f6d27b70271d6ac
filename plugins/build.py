"""Assemble an Engine from a configuration and the installed plugins: the one place where the parts meet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..core.capabilities import Capabilities, Support
from ..core.checkpoint import Checkpoint
from ..core.constraints import GrammarCompiler
from ..core.draft_pace import DraftPolicy
from ..core.engine import Engine
from ..core.interfaces import (
    AheadOfTime,
    Backend,
    Drafter,
    ModelRunner,
    PricedDrafter,
    RunnerConfig,
    RunnerInfo,
    Sampler,
)
from ..core.kv_cache import KVCacheConfig
from ..core.quantization import auto_dtype
from ..core.sampling import HostSampler
from ..core.scheduler import SchedulerConfig
from ..core.types import RequestOutput, StepStats, Unsupported
from .choice import choose_backend
from .drafters import DrafterContext
from .grammars import GrammarContext, TokenTable
from .manager import Plugins
from .storage import check_storage, is_weight_only

log = logging.getLogger("isotoken.engine")

VERIFY_COST = {"cuda": 0.01, "cpu": 0.06}
"""RunnerInfo.verify_cost where a backend does not say: a weight's arithmetic for a token, over the time to read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything that decides how an engine is built. "auto" is resolved in `build_engine`, which says why."""

    model: str  # a folder in Hugging Face layout
    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    max_model_len: int = 0  # 0: what the model was made for
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    max_num_logits: int = 0  # 0: the runner's choice
    block_size: int = 16
    num_blocks: int = 0  # 0: from memory_fraction
    memory_fraction: float = 0.9
    scheduler: str = "continuous"
    kv_cache: str = "auto"  # contiguous for a runner that keeps a whole request in one block, else paged
    sampler: str = "auto"  # the runner's own, else the host's
    drafter: str = "none"
    draft_model: str | None = None  # a folder; implies drafter "model"
    num_draft_tokens: int = 7  # the most for one request in a step
    fixed_drafts: bool = False  # always as many, whether they pay or not
    verify_cost: float = 0.0  # of one more token in a step, in parts of a step of one token; 0: the backend's
    prefix_caching: bool = True
    grammars: str = "auto"  # llguidance where it is installed, else none
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int = 1
    num_threads: int = 0
    options: Mapping[str, str] = field(default_factory=dict)


class Built(NamedTuple):
    """An engine with what was picked for it."""

    engine: Engine
    backend: str
    device: str
    dtype: str
    reasons: tuple[str, ...]  # one line for each choice that the configuration left open
    checkpoint: Checkpoint
    kv_cache: str  # the cache's name
    capabilities: Capabilities  # what the backend declares
    grammars: GrammarCompiler | None = None
    no_grammars: str = ""  # why there is none


def build_engine(
    config: EngineConfig,
    plugins: Plugins,
    publish: Callable[[list[RequestOutput]], None],
    *,
    on_read: Callable[[str, int], None] | None = None,
    on_open: Callable[[Checkpoint], None] | None = None,
    load_tokens: Callable[[], TokenTable] | None = None,
) -> Built:
    """Open the checkpoint, load it on the chosen backend and put scheduler, cache, sampler and drafter around it.

    `on_open` sees the checkpoint before its weights are read, `on_read(name, num_bytes)` each tensor as it is;
    `load_tokens` reads the tokenizer when the first grammar comes.
    Raises CheckpointError, PluginError, Unsupported or ValueError with a message for the user.
    """
    checkpoint = Checkpoint.open(Path(config.model), on_read=on_read)
    if on_open is not None:
        on_open(checkpoint)
    reasons: list[str] = []
    config = _within_budget(config, reasons)
    name, backend = choose_backend(config, plugins, reasons)
    can = backend.capabilities
    runner_config = _runner_config(config, name, can, checkpoint, plugins, reasons)
    runner = backend.load(checkpoint, runner_config)
    try:
        kv_cache = _kv_cache(config, name, runner.info, reasons)
        grammars, no_grammars = _grammars(config, plugins, runner.info, load_tokens)
        engine = _assemble(config, plugins, name, backend, runner, runner_config, kv_cache, publish, reasons, grammars)
    except BaseException:
        runner.close()
        raise
    facts = runner.info.device, runner.info.dtype, tuple(reasons), checkpoint, kv_cache, can
    return Built(engine, name, *facts, grammars, no_grammars)


class Kept(NamedTuple):
    """What was built ahead of time."""

    path: Path
    backend: str
    device: str
    dtype: str
    reasons: tuple[str, ...]  # as in Built


def build_ahead(config: EngineConfig, plugins: Plugins, on_progress: Callable[[str, float], None]) -> Kept:
    """Let the backend build and keep what `build_engine` would need for the same configuration.

    Raises Unsupported for a backend that has nothing to build, else as build_engine does.
    """
    checkpoint = Checkpoint.open(Path(config.model))
    reasons: list[str] = []
    config = _within_budget(config, reasons)
    name, backend = choose_backend(config, plugins, reasons)
    if not isinstance(backend, AheadOfTime):
        raise Unsupported(
            f"backend {name} has nothing to build ahead of time; name a backend that compiles models, such as tensorrt"
        )
    settled = _runner_config(config, name, backend.capabilities, checkpoint, plugins, reasons)
    path = backend.build(checkpoint, settled, on_progress)
    return Kept(path, name, settled.device, settled.dtype, tuple(reasons))


def _within_budget(config: EngineConfig, reasons: list[str]) -> EngineConfig:
    """Run no more requests at once than get a token in each step: the newest would hold memory, and starve."""
    budget = config.max_num_batched_tokens
    if config.max_num_seqs <= budget:
        return config
    reasons.append(f"max_num_seqs {budget}: no more get a token in each step of max_num_batched_tokens={budget}")
    return replace(config, max_num_seqs=budget)


def _runner_config(
    config: EngineConfig, name: str, can: Capabilities, checkpoint: Checkpoint, plugins: Plugins, reasons: list[str]
) -> RunnerConfig:
    """Resolve device and dtype, and refuse what the backend does not declare."""
    device = config.device
    if device == "auto":
        device = "cuda" if "cuda" in can.devices else "cpu"
        reasons.append(
            f"device {device}: " + ("the fastest here" if device == "cuda" else f"no other that {name} can use is here")
        )
    elif device.split(":")[0] not in can.devices:
        missing = can.missing_devices.get(device.split(":")[0])
        raise Unsupported(
            f"backend {name} cannot run on device {device!r} here; it can on: {', '.join(sorted(can.devices))}"
            + (f" ({missing})" if missing else "")
        )
    dtype, dtypes = config.dtype, can.device_dtypes.get(device.split(":")[0], can.dtypes)
    if dtype == "auto":
        weight_only = checkpoint.packing is not None or is_weight_only(config.quantization, plugins)
        dtype, why = auto_dtype(name, can, dtypes, checkpoint.dtype, weight_only=weight_only)
        reasons.append(f"dtype {dtype}: {why}")
    elif dtype not in dtypes:
        raise Unsupported(f"backend {name} does not compute in {dtype!r}; it does in: {', '.join(sorted(dtypes))}")
    check_storage(name, can, plugins, checkpoint, config.quantization, config.kv_cache_dtype)
    if checkpoint.packing is not None:
        reasons.append(f"weights {checkpoint.packing}: as the checkpoint has them")
    if not 1 <= config.tensor_parallel_size <= can.max_tensor_parallel_size:
        raise Unsupported(
            f"backend {name} runs on at most {can.max_tensor_parallel_size} device(s) of a replica: "
            f"tensor_parallel_size={config.tensor_parallel_size} is not possible"
        )
    _require(name, "chunked prefill (which every scheduler here uses)", can.chunked_prefill)
    if config.drafter != "none" or config.draft_model is not None:
        _require(name, "speculative decoding", can.speculative)
    memory_fraction = config.memory_fraction
    if config.draft_model is not None and not config.num_blocks:
        memory_fraction *= _share_beside_draft(checkpoint, config.draft_model)
    whole_rows = config.kv_cache != "auto" and _whole_rows(config.kv_cache, plugins)
    max_model_len = config.max_model_len or checkpoint.spec.max_position_embeddings
    return RunnerConfig(
        dtype=dtype,
        device=device,
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_logits=config.max_num_logits,
        block_size=max_model_len if whole_rows else config.block_size,
        num_blocks=config.num_blocks or (config.max_num_seqs if whole_rows else 0),
        memory_fraction=memory_fraction,
        quantization=config.quantization,
        kv_cache_dtype=config.kv_cache_dtype,
        tensor_parallel_size=config.tensor_parallel_size,
        num_threads=config.num_threads,
        options=config.options,
    )


def _kv_cache(config: EngineConfig, name: str, info: RunnerInfo, reasons: list[str]) -> str:
    """Return the KV cache's name: for "auto" the one that suits the runner's blocks."""
    if config.kv_cache != "auto":
        return config.kv_cache
    if info.block_size < info.max_model_len:
        return "paged"
    reasons.append(f"kv_cache contiguous: backend {name} keeps each request in one row of {info.block_size} tokens")
    return "contiguous"


def _whole_rows(kv_cache: str, plugins: Plugins) -> bool:
    """Whether the KV cache wants blocks of max_model_len, as its factory says."""
    return bool(getattr(plugins.kv_caches.get_factory(kv_cache), "whole_rows", False))


def _bounded(info: RunnerInfo, whole_rows: bool) -> RunnerInfo:
    """Leave a cache that fills its blocks only as many as memory has room for, all full."""
    if whole_rows or not info.max_cached_tokens:
        return info
    return replace(info, num_blocks=min(info.num_blocks, info.max_cached_tokens // info.block_size))


def _prefix_caching(config: EngineConfig, name: str, can: Capabilities, whole_rows: bool, reasons: list[str]) -> bool:
    needed = can.block_copies if whole_rows else can.prefix_caching
    if config.prefix_caching and not needed:
        reasons.append(f"prefix caching off: backend {name} declares it absent: {needed.reason}")
        return False
    return config.prefix_caching


def _assemble(
    config: EngineConfig,
    plugins: Plugins,
    name: str,
    backend: Backend,
    runner: ModelRunner,
    runner_config: RunnerConfig,
    kv_name: str,
    publish: Callable[[list[RequestOutput]], None],
    reasons: list[str],
    grammars: GrammarCompiler | None,
) -> Engine:
    info, can = runner.info, backend.capabilities
    prefix_caching = _prefix_caching(config, name, can, _whole_rows(kv_name, plugins), reasons)
    factory = plugins.kv_caches.get_factory(kv_name)
    kv_cache = factory(_bounded(info, _whole_rows(kv_name, plugins)), KVCacheConfig(prefix_caching=prefix_caching))
    scheduler = plugins.schedulers.get_factory(config.scheduler)(kv_cache, SchedulerConfig.from_info(info))
    drafter = _drafter(config, plugins, backend, info, runner_config)
    return Engine(
        runner,
        scheduler,
        kv_cache,
        sampler=_sampler(config, plugins, runner),
        drafter=drafter,
        draft_policy=None if drafter is None else _draft_policy(config, info, drafter, reasons),
        publish=publish,
        on_step=_StepHook(plugins),
        prompt_logprobs=can.prompt_logprobs,
        grammars=grammars,
    )


def _grammars(
    config: EngineConfig, plugins: Plugins, info: RunnerInfo, load_tokens: Callable[[], TokenTable] | None
) -> tuple[GrammarCompiler | None, str]:
    """Return what compiles grammars; or None, and why. Raises Unsupported where one was named that cannot be used."""
    if config.grammars == "none":
        return None, "it was started with grammars=none"
    if load_tokens is None:
        return None, "the engine was built without a tokenizer"
    name = "llguidance" if config.grammars == "auto" else config.grammars
    context = GrammarContext(vocab_size=info.vocab_size, eos_token_ids=info.eos_token_ids, load_tokens=load_tokens)
    try:
        return plugins.grammars.get_factory(name)(context), ""
    except Unsupported as error:
        if config.grammars != "auto":
            raise
        return None, str(error)


def _sampler(config: EngineConfig, plugins: Plugins, runner: ModelRunner) -> Sampler:
    if config.sampler == "auto":
        return runner.sampler or HostSampler()
    sampler: Sampler = plugins.samplers.get_factory(config.sampler)(runner.info)
    return sampler


def _drafter(
    config: EngineConfig, plugins: Plugins, backend: Backend, info: RunnerInfo, runner_config: RunnerConfig
) -> Drafter | None:
    name = "model" if config.drafter == "none" and config.draft_model is not None else config.drafter
    if name == "none":
        return None
    load = (
        None if config.draft_model is None else partial(_load_draft, config.draft_model, backend, info, runner_config)
    )
    context = DrafterContext(
        num_draft_tokens=config.num_draft_tokens,
        info=info,
        prefix_caching=config.prefix_caching and bool(backend.capabilities.prefix_caching),
        block_copies=config.prefix_caching and bool(backend.capabilities.block_copies),
        load_runner=load,
    )
    drafter: Drafter = plugins.drafters.get_factory(name)(context)
    return drafter


def _draft_policy(config: EngineConfig, info: RunnerInfo, drafter: Drafter, reasons: list[str]) -> DraftPolicy | None:
    """Return what decides how many tokens are guessed; None for a number that is fixed."""
    if config.fixed_drafts:
        return None
    verify_cost = config.verify_cost or info.verify_cost or VERIFY_COST["cuda" if "cuda" in info.device else "cpu"]
    propose_cost = drafter.propose_cost if isinstance(drafter, PricedDrafter) else 0.0
    reasons.append(
        f"drafts as many as pay, up to {config.num_draft_tokens} at once: verifying one costs {verify_cost:.2g} of a "
        f"step, making it {propose_cost:.2g}"
    )
    return DraftPolicy(num_draft_tokens=config.num_draft_tokens, verify_cost=verify_cost, propose_cost=propose_cost)


def _share_beside_draft(checkpoint: Checkpoint, draft_model: str) -> float:
    """Return the model's share of the K/V memory that holds the same tokens for it and for the draft model.

    Planned before either is there: what one has planned for itself may look free to the other until it is used.
    """
    own, drafts = (
        spec.num_layers * spec.num_kv_heads * spec.head_dim
        for spec in (checkpoint.spec, Checkpoint.open(Path(draft_model)).spec)
    )
    return own / (own + drafts)


def _load_draft(folder: str, backend: Backend, info: RunnerInfo, target: RunnerConfig) -> ModelRunner:
    checkpoint = Checkpoint.open(Path(folder))
    if checkpoint.spec.vocab_size != info.vocab_size:
        raise ValueError(
            f"draft model {folder} has a vocabulary of {checkpoint.spec.vocab_size}, the model one of "
            f"{info.vocab_size}: a draft model needs the same tokenizer"
        )
    max_model_len = min(info.max_model_len, checkpoint.spec.max_position_embeddings)
    config = RunnerConfig(
        dtype=info.dtype,
        device=target.device,
        max_model_len=max_model_len,
        max_num_seqs=info.max_num_seqs,
        max_num_batched_tokens=info.max_num_batched_tokens,
        num_threads=target.num_threads,
        options=target.options,
    )
    if info.block_size < info.max_model_len:  # it need not hold more tokens than the model does
        config = replace(config, block_size=info.block_size, num_blocks=info.num_blocks)
    return backend.load(checkpoint, config)


class _StepHook:
    """Calls the on_step hook. A stranger's error does not end the engine; it is logged once, for steps are many."""

    def __init__(self, plugins: Plugins) -> None:
        self._hook = plugins.hook.on_step
        self._failed = False

    def __call__(self, stats: StepStats) -> None:
        try:
            self._hook(stats=stats)
        except Exception:
            if not self._failed:
                log.exception("a plugin's on_step failed")
            self._failed = True


def _require(name: str, what: str, support: Support) -> None:
    if support is not True:
        raise Unsupported(f"backend {name} does not offer {what}: {support.reason}")
