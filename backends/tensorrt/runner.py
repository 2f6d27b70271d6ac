"""The runner: an engine, the K/V rows that it writes in place, and the runs that a batch is cut into."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ...core.batch import Batch
from ...core.fast_sampler import FastSampler
from ...core.interfaces import RunnerInfo, Sampler
from ..rows import Run, aligned, plan_runs
from .cache import Cache
from .design import Design
from .device import Device
from .engine import Context, Engine, past_of
from .errors import TensorRTError
from .feeds import Inputs, logits_places, make_feeds
from .logits import Logits, Outbox
from .profiles import DECODE, PREFILL, VERIFY

MAX_RECORDINGS = 64
"""CUDA graphs kept; each has an execution context of its own."""


class TensorRTRunner:
    """Runs ragged batches on one GPU. Not thread-safe."""

    def __init__(self, design: Design, device: Device, engine: Engine, info: RunnerInfo) -> None:
        self.info = info
        self.sampler: Sampler | None = FastSampler()
        self._design, self._device = design, device
        self._engine: Engine | None = engine
        self._cache = Cache(device, design.cache_shape(info.num_blocks))
        ports = [port for port in design.graph.inputs if not port.name.startswith("past_")]
        self._inputs = Inputs(device, ports, design.profiles)
        most = max(profile.largest("L") for profile in design.profiles)
        self._logits = device.allocate(4 * most * info.vocab_size, "logits")
        self._outbox = Outbox(device, info.max_num_logits, info.vocab_size)
        self._cover = aligned(info.num_blocks, info.max_num_seqs)
        self._contexts: dict[int, Context] = {}  # by profile
        self._recordings: OrderedDict[tuple[int, int], tuple[Context, Callable[[], None]]] = OrderedDict()

    def forward(self, batch: Batch) -> Logits:
        """Put one step on the device's stream; float32 logits [L, vocab_size], which are waited for when read."""
        if self._engine is None:
            raise RuntimeError("backend tensorrt: the runner is closed")
        with self._device.active():
            self._cache.copy_rows(batch.block_copies)
            for run in plan_runs(batch, self._cover, widths=(1, self._design.options.verify_tokens)):
                self._run(self._engine, batch, run)
            return self._outbox.logits(len(batch.logits_indices))

    def close(self) -> None:
        """Give back the engine and all memory."""
        if self._engine is None:
            return
        with self._device.active():
            self._device.synchronize()
            self._recordings.clear()
            self._contexts.clear()
            self._engine = None
            del self._cache, self._inputs, self._logits, self._outbox

    def _run(self, engine: Engine, batch: Batch, run: Run) -> None:
        self._cache.begin(run)
        feeds = make_feeds(batch, run, self._design.max_model_len)
        self._inputs.upload(feeds)
        shapes = {name: array.shape for name, array in feeds.items()}
        if run.width == 1 and self._design.options.cuda_graphs:
            self._replay(engine, run, shapes)
        else:
            self._bound(engine, run, shapes).run()
        self._outbox.collect(self._logits, logits_places(run), run.logits)

    def _replay(self, engine: Engine, run: Run, shapes: dict[str, tuple[int, ...]]) -> None:
        """Decode from a recording. A window's first run is a plain one, which is then recorded for the next time.

        A recording is bound to the context that it was made with, so each has one of its own.
        """
        key = run.first_row, run.num_rows
        if key in self._recordings:
            self._recordings.move_to_end(key)
            self._recordings[key][1]()
            return
        context = engine.context(DECODE)
        self._bind(context, run, shapes)
        context.run()
        while len(self._recordings) >= MAX_RECORDINGS:
            self._device.synchronize()
            self._recordings.popitem(last=False)
        try:
            self._recordings[key] = context, self._device.record(context.run)
        except RuntimeError as error:
            raise TensorRTError(
                f"backend tensorrt: a run of {run.num_rows} rows could not be recorded as a CUDA graph: {error}. "
                "What to do: set the option cuda_graphs=off"
            ) from error

    def _bound(self, engine: Engine, run: Run, shapes: dict[str, tuple[int, ...]]) -> Context:
        """Return the context of the run's profile with the run's shapes and addresses."""
        short = run.width <= self._design.options.verify_tokens
        profile = DECODE if run.width == 1 else VERIFY if short else PREFILL
        if profile not in self._contexts:
            self._contexts[profile] = engine.context(profile)
        self._bind(self._contexts[profile], run, shapes)
        return self._contexts[profile]

    def _bind(self, context: Context, run: Run, shapes: dict[str, tuple[int, ...]]) -> None:
        inputs: dict[str, tuple[int, tuple[int, ...]]] = {
            name: (self._inputs.address(name), shape) for name, shape in shapes.items()
        }
        for port in self._design.graph.inputs:
            if port.name.startswith("past_"):
                _, *rest = port.shape
                inputs[port.name] = (
                    self._cache.address(port.name, run.first_row), (run.num_rows, *(int(dim) for dim in rest))
                )  # fmt: skip
        outputs = {"logits": self._logits.address}
        for port in self._design.graph.outputs:
            if port.name.startswith("present_"):
                outputs[port.name] = inputs[past_of(port.name)][0]
        context.bind(inputs, outputs)
