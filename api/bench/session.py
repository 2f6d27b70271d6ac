"""Engines of one model, all loaded at once, with the judge of their tokens and the meter of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from ...core.checkpoint import Checkpoint
from ...core.types import IsotokenError, Unsupported
from ...plugins.manager import Plugins
from .checks import Check, Judge
from .engines import Isotoken, Run, token_hash
from .machine import Others
from .results import Variant
from .roof import Model, Roof, RoofMeter, arithmetic_dtype
from .truth import Truth, Truths
from .workloads import LONGEST, Workload, make_streams, make_workload, shorter, small

_SPARE_TOKENS = 16


class Bench:
    """Use as a context manager. `tell` hears of each piece of work before it begins.

    `share` above 1 cuts the workloads down for a quick look; `settings` are more fields of EngineConfig, for all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        plugins: Plugins,
        device: str = "auto",
        threads: int = 1,
        share: int = 1,
        settings: dict[str, Any] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder, self.device, self.threads, self.share, self.tell = folder, device, threads, share, tell
        self.model = Model.of(folder)
        self.engines: dict[Variant, Isotoken] = {}
        self.settled: dict[Variant, Variant] = {}  # as asked for: as it was loaded, "auto" resolved
        self.left_out: list[str] = []  # and why
        self.roofs: list[Roof] = []  # every one that was measured
        self.others: list[float] = []  # CPUs that other processes kept busy, in each measured run
        spec = Checkpoint.open(folder).spec
        self._vocab_size = spec.vocab_size
        self._max_model_len = min(LONGEST + _SPARE_TOKENS, spec.max_position_embeddings)
        self._plugins = plugins
        self._settings = settings or {}
        self._salts = count(1)
        self._parts: list[Any] = []  # to be closed

    def load(self, variants: Sequence[Variant]) -> None:
        """Load what can be had; what a backend does not offer is left out, and said.

        The first engine is the one that ratios are to. Raises Unsupported if none is left, else as build_engine.
        """
        for variant in variants:
            self.tell(f"loading {variant.label}")
            try:
                engine = self._load(variant, len(variants))
            except Unsupported as error:
                self.left_out.append(f"{variant.label}: {error}")
                continue
            self._parts.append(engine)
            self.settled[variant] = replace(variant, backend=engine.backend, dtype=engine.dtype)
            self.engines[self.settled[variant]] = engine
        if not self.engines:
            raise Unsupported("nothing is left to be measured: " + "; ".join(self.left_out))
        self.device = next(iter(self.engines.values())).device
        self.tell("loading the reference, which judges the tokens")
        truth = Truth(self.folder, self._plugins, self._max_model_len)
        dtypes = {arithmetic_dtype(variant.dtype, variant.quantization) for variant in self.engines}
        truths = Truths(partial(Truth, self.folder, self._plugins, self._max_model_len), self.tell)
        self._judge = Judge(truth, truths)
        self._meter = RoofMeter(self.model.num_bytes, dtypes, self.device, self.threads)
        self._parts += [truth, truths, self._meter]

    def _load(self, variant: Variant, num_engines: int) -> Isotoken:
        settings = {
            "num_threads": self.threads,
            "memory_fraction": 0.8 / num_engines,
            "max_model_len": self._max_model_len,
            "quantization": variant.quantization,
        }
        return Isotoken(
            self.folder,
            dtype=variant.dtype,
            backend=variant.backend,
            device=self.device,
            scheduler=variant.scheduler,
            settings=settings | self._settings,
            name=variant.label,
            plugins=self._plugins,
        )

    def make_workload(self, name: str) -> Workload:
        """The workload of that name, as large as this bench measures it."""
        workload = make_workload(name, vocab_size=self._vocab_size)
        return workload if self.share == 1 else small(workload, self.share)

    def make_streams(self, concurrency: int) -> Workload:
        """Requests for that many streams."""
        if self.share == 1:
            return make_streams(concurrency, self._vocab_size)
        return shorter(make_streams(concurrency, self._vocab_size, per_stream=1, least=4), self.share)

    def check(self, variant: Variant, workload: Workload, in_flight: int = 0) -> Check:
        """Run a workload for the first time, which also warms up, and judge the tokens."""
        self.tell(f"{workload.name}: warming up {variant.label}")
        run = self._run(variant, workload, in_flight)
        self.tell(f"{workload.name}: checking the tokens of {variant.label}")
        return self._judge.check(self.engines[variant], workload, run)

    def run(self, variant: Variant, workload: Workload, in_flight: int = 0) -> Run:
        """Run it for the clock."""
        self.tell(f"{workload.name}: measuring {variant.label}")
        with Others() as others:
            run = self._run(variant, workload, in_flight)
        self.others.append(others.cpus)
        return run

    @contextmanager
    def leaving_out(self, variant: Variant, workload: Workload) -> Iterator[None]:
        """Leave an engine out that fails inside, and say why; the others go on. Raises the error if it was the last."""
        try:
            yield
        except (IsotokenError, RuntimeError, ValueError, MemoryError) as error:
            if len(self.engines) == 1:
                raise
            self.left_out.append(f"{variant.label}: failed in {workload.name}: {error}")
            self.engines.pop(variant).close()

    def hold(self, variant: Variant, workload: Workload, run: Run, check: Check) -> Check:
        """Hold a run to the tokens that were checked. Other tokens are judged in their turn."""
        if not check.ok or token_hash(run) == check.tokens:
            return check
        return self._judge.check(self.engines[variant], workload, run)

    def _run(self, variant: Variant, workload: Workload, in_flight: int) -> Run:
        salt = str(next(self._salts)).encode()  # no prefix cache knows the prompts from the run before
        return self.engines[variant].run(workload, salt=salt, in_flight=in_flight)

    def measure_roof(self) -> Roof:
        """Measure the machine once, while no engine runs."""
        self.tell("measuring the machine")
        self.roofs.append(self._meter.measure())
        return self.roofs[-1]

    def close(self) -> None:
        """Give everything back."""
        for part in self._parts:
            part.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
