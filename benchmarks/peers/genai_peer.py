"""onnxruntime-genai: its environment, its models, and its ways to run a workload."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from isotoken.api.bench.workloads import Workload

from .environment import convert_once
from .process import Peer, Way

REQUIREMENTS = (
    "onnxruntime-genai>=0.18",
    "onnxruntime",
    "onnx",
    "onnx-ir",
    "torch",  # its converter's
    "transformers",  # likewise
)
PRECISIONS = {"float32": "fp32", "int8": "int8", "int4": "int4"}
"""Ours -> what the converter calls it."""

NEAREST = ("algo_config=default", "block_size=32", "accuracy_level=4", "is_symmetric=true")
"""The converter's options that come nearest to isotoken's int8 and int4: round to nearest, symmetric, blocks of 32.

Its scales may be negative, which makes its int4 a little finer than ours: about 8.6% instead of 9.2% of a weight's
standard deviation (kernels/cpu/quantize.py says why we do without).
"""

BATCHES = (8, 16, 32)  # it refuses more than 32 rows


class Genai(Peer):
    """onnxruntime-genai on the folders that its converter wrote: the whole model, and one with pruned logits."""

    name = "onnxruntime-genai"
    worker = Path(__file__).with_name("genai_worker.py")

    def __init__(self, python: Path, folder: Path, pruned: Path, *, threads: int) -> None:
        super().__init__(python, threads=threads)
        self._folders = {False: folder, True: pruned}

    @classmethod
    def open(cls, python: Path, model: Path, precision: str, cache: Path, *, threads: int) -> Self:
        """Convert the model where that has not been done, and start the process."""
        folders = [convert(python, model, precision, cache, pruned=pruned) for pruned in (False, True)]
        return cls(python, *folders, threads=threads)

    def make_way(self, api: str, batch: int, *, spinning: str = "off", pruned: bool = False) -> Way:
        """One way: see genai_worker.py."""
        words = [f"{api} of {batch}", *["pruned"] * pruned, f"spinning {spinning}"]
        load = {"folder": str(self._folders[pruned]), "max_batch": max(BATCHES), "spinning": spinning}
        return Way(", ".join(words), tuple(load.items()), (("way", api), ("batch", batch)))

    def ways(self, workload: Workload) -> list[Way]:
        """See Peer. With pruned logits only those that work and give the right tokens."""
        return [*self._ways(workload, pruned=False), *self._ways(workload, pruned=True)]

    def _ways(self, workload: Workload, *, pruned: bool) -> list[Way]:
        count = len(workload.tasks)
        batches = sorted({min(size, count) for size in BATCHES})
        if pruned and len({len(task.prompt) for task in workload.tasks}) > 1:
            batches = []
        apis = ("generator",) if pruned else ("generator", "engine")  # the Engine refuses such a model
        found = [self.make_way(api, batch, pruned=pruned) for api in apis for batch in batches]
        if workload.num_distinct_prompt_tokens < workload.num_prompt_tokens:
            found.append(self.make_way("shared", 1, pruned=pruned))
        return found

    def variations(self, way: Way, spinnings: Iterable[str]) -> list[Way]:
        """See Peer: every kind of spinning."""
        load, run = dict(way.load), dict(way.run)
        pruned = load["folder"] == str(self._folders[True]) != str(self._folders[False])
        return [self.make_way(run["way"], run["batch"], spinning=each, pruned=pruned) for each in spinnings]


def convert(python: Path, model: Path, precision: str, cache: Path, *, pruned: bool = False) -> Path:
    """Return `model` as onnxruntime-genai wants it, under `cache`, made now if it is not there.

    `pruned`: a prompt's logits are computed for the last position only. That is faster, and wrong for rows that end
    before others of their batch. Raises RuntimeError with the end of the converter's output.
    """

    def command(target: Path) -> Sequence[str]:
        options = [*(NEAREST if precision != "float32" else ()), *(["prune_lm_head=true"] if pruned else [])]
        return [
            *(str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(model), "-o", str(target)),
            *("-e", "cpu", "-p", PRECISIONS[precision], "-c", str(cache / "hf-cache")),
            *(["--extra_options", *options] if options else []),
        ]

    target = cache / f"{model.name}-genai-{precision}{'-pruned' if pruned else ''}"
    return convert_once(target, "genai_config.json", command)
