"""The lab: one backend in one dtype, its runners, engines around them, and what was measured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..core.capabilities import Aspect, Capabilities
from ..core.checkpoint import Checkpoint
from ..core.interfaces import Backend, ModelRunner, RunnerConfig
from ..core.types import RequestOutput, Unsupported
from ..plugins.build import Built, EngineConfig, build_engine
from ..plugins.manager import Plugins
from .cases import Case
from .judge import Tally, bound_of, trace_of
from .models import DRAFT, MODELS, write_checkpoint
from .oracle import Trace
from .rig import Array, Rig
from .targets import Target

MAX_NUM_SEQS, MAX_MODEL_LEN, NUM_BLOCKS = 8, 256, 96
_MAX_RUNNERS = 6  # kept loaded at once


class Lab:
    """Everything that tests need of one target."""

    def __init__(self, target: Target, plugins: Plugins, folder: Path) -> None:
        self.target, self.plugins, self._folder = target, plugins, folder
        self.backend: Backend = plugins.backends.get_factory(target.backend)()
        self.tally = Tally()
        self._said: dict[str, tuple[str, list[int]]] = {}  # by request: the first to make it, and its tokens
        self._runners: OrderedDict[tuple[Any, ...], ModelRunner] = OrderedDict()

    @property
    def can(self) -> Capabilities:
        """What the backend declares."""
        return self.backend.capabilities

    @property
    def device(self) -> str:
        """The device asked for, or the fastest that the backend declares."""
        if self.target.device != "auto":
            return self.target.device
        return "cuda" if "cuda" in self.can.devices else "cpu" if "cpu" in self.can.devices else min(self.can.devices)

    def need(self, *capabilities: str) -> None:
        """Skip the running test if one of these is declared absent."""
        for name in capabilities:
            support = getattr(self.can, name)
            if not support:
                pytest.skip(f"declared absent: {name} {support.kind}: {support.reason}")

    def checkpoint(self, model: str) -> Checkpoint:
        """Open one of the suite's models, written on first use."""
        folder = self._folder / model
        if not (folder / "model.safetensors").exists():
            write_checkpoint(DRAFT if model == DRAFT.name else MODELS[model], folder)
        return Checkpoint.open(folder)

    def config(self, **changes: Any) -> RunnerConfig:
        """What the suite asks of a runner."""
        fields: dict[str, Any] = {
            "dtype": self.target.dtype, "quantization": self.target.quantization, "device": self.device,
            "max_model_len": MAX_MODEL_LEN, "max_num_seqs": MAX_NUM_SEQS, "max_num_batched_tokens": 512,
            "block_size": 16, "num_blocks": NUM_BLOCKS,
            "options": dict(self.target.options),
        }  # fmt: skip
        return RunnerConfig(**(fields | changes))

    def load(self, model: str = "llama", **changes: Any) -> ModelRunner:
        """Load a runner that the caller closes. Skips the test where the backend refuses the model, llama excepted."""
        try:
            return self.backend.load(self.checkpoint(model), self.config(**changes))
        except Unsupported:
            if model != "llama" and (reason := self.refusal(model)):
                pytest.skip(f"declared absent: model {model}: {reason}")
            raise

    def refusal(self, model: str) -> str:
        """Why the backend does not run a model, whatever is asked of the runner; empty where it does."""
        try:
            self.backend.load(self.checkpoint(model), self.config()).close()
        except Unsupported as error:
            return str(error)
        return ""

    def runner(self, model: str = "llama", **changes: Any) -> ModelRunner:
        """Return a loaded runner that is shared between tests: its blocks are dirty, as they are in service."""
        key = (model, *sorted(changes.items()))
        if key not in self._runners:
            while len(self._runners) >= _MAX_RUNNERS:
                self._runners.popitem(last=False)[1].close()
            self._runners[key] = self.load(model, **changes)
        self._runners.move_to_end(key)
        return self._runners[key]

    def build(self, publish: Callable[[list[RequestOutput]], None] = lambda outputs: None, **changes: Any) -> Built:
        """Build an engine around the main model as every service does."""
        config = EngineConfig(
            model=str(self.checkpoint("llama").path),
            backend=self.target.backend,
            device=self.device,
            dtype=self.target.dtype,
            quantization=self.target.quantization,
            max_model_len=MAX_MODEL_LEN,
            max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=512,
            num_blocks=NUM_BLOCKS,
            options=dict(self.target.options),
            **changes,
        )
        return build_engine(config, self.plugins, publish)

    def rig(self, model: str = "llama", **changes: Any) -> Rig:
        """Return a shared runner to drive by hand."""
        return Rig(self.runner(model, **changes))

    def close(self) -> None:
        """Close every runner."""
        while self._runners:
            self._runners.popitem()[1].close()

    def refuses(self, call: Callable[[], Any]) -> str:
        """Assert that a call is refused with Unsupported or ValueError, and return the message."""
        try:
            result = call()
        except (Unsupported, ValueError) as error:
            return str(error)
        if hasattr(result, "close"):
            result.close()
        raise AssertionError("it was accepted; Unsupported or ValueError was due")

    # --- logits ---------------------------------------------------------------------------------

    def trace(self, model: str, tokens: Sequence[int]) -> Trace:
        """The oracle's answer for a sequence, with the weights of this target."""
        return trace_of(model, tuple(tokens), self.target.quantization)

    def bound(self, trace: Trace, row: int) -> float:
        """How far a logit of this row may be off."""
        return bound_of(trace, row, self.target.precision)

    def check_logits(self, got: Array, tokens: Sequence[int], rows: Sequence[int], model: str) -> None:
        """Compare logits [L, V] of the positions `rows` of a sequence with the oracle's, within the stated bound."""
        trace = self.trace(model, tokens)
        assert got.shape == (len(rows), trace.logits.shape[1]), f"logits have shape {got.shape}"
        assert np.isfinite(got).all(), "logits are not finite"
        for mine, row in zip(got, rows, strict=True):
            if trace.routing[row] <= self.target.precision.routing_bound:
                continue
            off = float(abs(mine - trace.logits[row]).max())
            bound = self.bound(trace, row)
            size = float(abs(trace.logits[row]).max())
            self.tally.max_logits_error = max(self.tally.max_logits_error, off / size)
            assert off <= bound, (
                f"{model}: logits of position {row} of {len(tokens)} are off by {off:.4g} ({off / size:.2g} of the "
                f"largest, {size:.4g}); the bound for {self.target.precision} is {bound:.4g}"
            )

    def promises(self, *aspects: Aspect) -> bool:
        """Whether logits must be bitwise equal that were computed with these differences only (none: in the same way).

        `batch_invariant` promises all of them whatever the precision, `invariant_to` those that it names in float64
        and float32; elsewhere what holds is measured and shown.
        """
        some = self.target.exact and bool(self.can.invariant_to)
        return bool(self.can.batch_invariant) or (some and set(aspects) <= self.can.invariant_to)

    def same_logits(self, one: Array, other: Array, what: str, *aspects: Aspect) -> None:
        """Two computations of the same rows that differ in `aspects`: bitwise equal where promised, else near.

        Near is within twice the bound. Where one aspect alone differs, by how much the logits do is noted.
        """
        assert one.shape == other.shape
        off, size = float(abs(one - other).max(initial=0.0)), float(abs(one).max(initial=0.0))
        if len(aspects) == 1:
            self.tally.differ(aspects[0], off / size if size else 0.0)
        if self.promises(*aspects):
            declared = f"invariance to {' and '.join(aspects) or 'the rest'} is declared"
            assert off == 0.0, f"{what}: logits differ by {off:.3g}, {declared}"
        limit = 2 * self.target.precision.bound * size
        assert off <= limit, f"{what}: logits differ by {off:.3g}, twice the bound is {limit:.3g}"

    def same_tokens(self, model: str, case: Case, tokens: list[int]) -> None:
        """Where batch_invariant is declared, a request gives the same tokens in every test, near-ties included."""
        if self.can.batch_invariant:
            request = f"{model} {case.prompt} {case.params} {case.done}"
            name, before = self._said.setdefault(request, (case.name, tokens))
            assert tokens == before, f"{case.name}: {tokens}, but {name} had {before}; batch_invariant is declared"

    def explain(self, model: str) -> Callable[[list[int]], str]:
        """Say how good the runner's logits after a prefix are when computed alone: is the fault there, or around it?"""

        def probe(prefix: list[int]) -> str:
            try:
                rig = Rig(self.load(model))
                got = rig.step([(rig.strand(prefix), len(prefix), 1)])[0][0]
                rig.runner.close()
            except Exception as error:  # this runs while another error is being reported
                return f" (computing the prefix alone failed: {error})"
            exact = self.trace(model, prefix).logits[-1]
            return (
                f"; computed alone, the runner's logits there differ from the oracle's by {abs(got - exact).max():.3g}"
            )

        return probe
