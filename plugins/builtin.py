"""The built-in schedulers, caches, samplers, drafters and quantisations, registered through hooks like anyone's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.quantization import SCHEMES
from .hookspecs import API_VERSION, Register, hookimpl

if TYPE_CHECKING:
    from ..core.constraints import GrammarCompiler
    from ..core.interfaces import Drafter, KVCache, RunnerInfo, Sampler, Scheduler
    from ..core.kv_cache import KVCacheConfig
    from ..core.scheduler import SchedulerConfig
    from .drafters import DrafterContext
    from .grammars import GrammarContext

ISOTOKEN_API = API_VERSION


# The factories import what they make, so that listing plugins imports nothing.


def _continuous(kv_cache: KVCache, config: SchedulerConfig) -> Scheduler:
    from ..core.scheduler import ContinuousScheduler  # noqa: PLC0415

    return ContinuousScheduler(kv_cache, config)


def _adaptive(kv_cache: KVCache, config: SchedulerConfig) -> Scheduler:
    from .schedulers.adaptive import AdaptiveScheduler  # noqa: PLC0415

    return AdaptiveScheduler(kv_cache, config)


def _naive(kv_cache: KVCache, config: SchedulerConfig) -> Scheduler:
    from .schedulers.naive import naive_scheduler  # noqa: PLC0415

    return naive_scheduler(kv_cache, config)


def _static(kv_cache: KVCache, config: SchedulerConfig) -> Scheduler:
    from .schedulers.static import StaticScheduler  # noqa: PLC0415

    return StaticScheduler(kv_cache, config)


def _paged(info: RunnerInfo, config: KVCacheConfig) -> KVCache:
    from ..core.kv_cache import PagedKVCache  # noqa: PLC0415

    return PagedKVCache(info, config)


class _Contiguous:
    whole_rows = True  # asks the runner for blocks of max_model_len

    def __call__(self, info: RunnerInfo, config: KVCacheConfig) -> KVCache:
        from .kv_caches.contiguous import ContiguousKVCache  # noqa: PLC0415

        return ContiguousKVCache(info, config)


def _host(info: RunnerInfo) -> Sampler:
    from ..core.sampling import HostSampler  # noqa: PLC0415

    return HostSampler()


def _ngram(context: DrafterContext) -> Drafter:
    from .drafters.ngram import NgramDrafter  # noqa: PLC0415

    return NgramDrafter(context)


def _model(context: DrafterContext) -> Drafter:
    from .drafters.model import ModelDrafter  # noqa: PLC0415

    return ModelDrafter(context)


def _llguidance(context: GrammarContext) -> GrammarCompiler:
    from .grammars.guidance import GuidanceCompiler  # noqa: PLC0415

    return GuidanceCompiler(context)


@hookimpl
def register_schedulers(register: Register) -> None:
    """Claim continuous, adaptive, static and naive."""
    register("continuous", _continuous, description="requests join and leave at every step")
    register("adaptive", _adaptive, description="continuous, with short steps while few prompts wait")
    register("static", _static, description="fixed batches, a baseline")
    register("naive", _naive, description="one request at a time, a baseline")


@hookimpl
def register_kv_caches(register: Register) -> None:
    """Claim paged and contiguous."""
    register("paged", _paged, description="blocks shared between requests with a common prefix")
    register("contiguous", _Contiguous(), description="one row for each request, prefixes copied")


@hookimpl
def register_samplers(register: Register) -> None:
    """Claim host."""
    register("host", _host, description="numpy, the normative sampler")


@hookimpl
def register_drafters(register: Register) -> None:
    """Claim ngram and model."""
    register("ngram", _ngram, description="prompt look-up")
    register("model", _model, description="a small model with the same tokenizer")


@hookimpl
def register_grammars(register: Register) -> None:
    """Claim llguidance."""
    register("llguidance", _llguidance, description="JSON schemas, regular expressions, Lark and GBNF grammars")


@hookimpl
def register_quantizations(register: Register) -> None:
    """Claim the names of core.quantization."""
    for name, scheme in SCHEMES.items():
        register(name, lambda scheme=scheme: scheme, description=scheme.description)
