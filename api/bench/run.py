"""A whole comparison: what is asked for, and the report of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from ...core.types import Unsupported
from ...plugins.manager import PluginError, Plugins
from ..models import resolve_model
from .machine import load_average, machine_facts, num_cpus, versions
from .measure import run_streams, run_workload
from .models import PREFIX, SIZES, ensure_model
from .results import Report, Variant
from .session import Bench
from .truth import TRUTH
from .workloads import ALL_WORKLOADS

CONCURRENCIES = (1, 2, 4, 8, 16, 32)
QUICK_SHARE = 4
NO_QUANTIZATION = "none"
NOTHING = "null"
"""The backend that computes no model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to compare. An engine is every combination of backend, dtype, quantization and scheduler."""

    model: str
    backends: Sequence[str] = ()  # none: all that are installed and can run here, but the reference and null
    dtypes: Sequence[str] = ()  # "float32", or "torch:bfloat16" for one backend; none: auto
    quantizations: Sequence[str] = ()  # likewise; "none" is one too
    schedulers: Sequence[str] = ("continuous",)
    workloads: Sequence[str] = ALL_WORKLOADS
    concurrencies: Sequence[int] = CONCURRENCIES
    rounds: int = 3
    share: int = 1
    device: str = "auto"
    threads: int = 0  # 0: a thread for each CPU
    settings: dict[str, Any] = field(default_factory=dict)  # more fields of EngineConfig
    command: str = ""

    def variants(self, plugins: Plugins) -> list[Variant]:
        """All engines, in the order asked for."""
        backends = self.backends or installed(plugins)
        if not backends:
            raise Unsupported(f"no backend but {TRUTH} is installed: name it to measure it, --backend {TRUTH}")
        combinations: dict[tuple[str, str, str, str], None] = {}
        for backend in backends:
            dtypes = _asked_of(backend, self.dtypes) or ["auto"]
            quantizations = _asked_of(backend, self.quantizations) or [NO_QUANTIZATION]
            combinations |= dict.fromkeys(product([backend], dtypes, quantizations, self.schedulers))
        return [
            Variant(backend, dtype, None if quantization == NO_QUANTIZATION else quantization, scheduler)
            for backend, dtype, quantization, scheduler in combinations
        ]

    def num_steps(self, num_variants: int) -> int:
        """How often `tell` will hear of work, if nothing is left out."""
        checked = 2 * num_variants
        per_workload = checked + self.rounds * (num_variants + 1)
        per_count = checked + self.rounds * num_variants
        loading = num_variants + 1
        return loading + len(self.workloads) * per_workload + len(self.concurrencies) * per_count


def _asked_of(backend: str, asked: Sequence[str]) -> list[str]:
    return [name.removeprefix(f"{backend}:") for name in asked if ":" not in name or name.startswith(f"{backend}:")]


def installed(plugins: Plugins) -> list[str]:
    """Backends that can run here. Not the reference, which is there to be right, nor null, which computes nothing."""
    found = []
    for name in plugins.backends:
        try:
            backend = plugins.backends.get_factory(name)()
        except (PluginError, Unsupported):
            continue
        if backend.capabilities.devices and name not in (TRUTH, NOTHING):
            found.append(name)
    return found


def model_folder(name: str) -> Path:
    """A model's folder: as `resolve_model`, and "random-125m" and the like, made now if they are not there."""
    if name.removeprefix(PREFIX) in SIZES:
        return ensure_model(name.removeprefix(PREFIX))
    return resolve_model(name)


def run(plan: Plan, plugins: Plugins, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Load every engine, check and measure. Raises what loading raises, and Unsupported if nothing can be loaded."""
    folder = model_folder(plan.model)
    threads = plan.threads or num_cpus()
    started, load_before = datetime.now(UTC), load_average()
    bench = Bench(
        folder,
        plugins=plugins,
        device=plan.device,
        threads=threads,
        share=plan.share,
        settings=plan.settings,
        tell=tell,
    )
    with bench:
        bench.load(plan.variants(plugins))
        variants = list(bench.engines)
        results = [result for name in plan.workloads for result in run_workload(bench, name, plan.rounds)]
        points = [point for count in plan.concurrencies for point in run_streams(bench, count, plan.rounds)]
        return Report(
            model=plan.model,
            num_bytes=bench.model.num_bytes,
            device=bench.device,
            threads=threads,
            rounds=plan.rounds,
            share=plan.share,
            started=started.strftime("%Y-%m-%d %H:%M UTC"),
            command=plan.command,
            machine=machine_facts(bench.device),
            versions=versions(),
            variants=variants,
            left_out=bench.left_out,
            roofs=bench.roofs,
            loads=[load_before, load_average()],
            others=bench.others,
            results=results,
            points=points,
        )
