"""OpenVINO GenAI: its environment, its models, and its ways to run a workload."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from isotoken.api.bench.workloads import Workload

from .environment import convert_once
from .process import Peer, Way

REQUIREMENTS = (
    "openvino",
    "openvino-genai",
    "openvino-tokenizers",
    "optimum-intel[openvino]",  # its converter, with
    "torch",
)
PRECISIONS = {
    "float32": ("fp32", "f32"),
    "bfloat16": ("fp16", "bf16"),
    "int8": ("int8", "bf16"),
    "int4": ("int4", "bf16"),
}
"""Ours -> how it stores weights, and what it computes in (its INFERENCE_PRECISION_HINT)."""

GROUPS = ("--group-size", "64", "--ratio", "1.0")
"""Of int4: all matrices, and the group size that was fastest (of 32, 64 and 128)."""


class OpenVino(Peer):
    """OpenVINO GenAI's ContinuousBatchingPipeline, prefix caching on."""

    name = "OpenVINO GenAI"
    worker = Path(__file__).with_name("openvino_worker.py")

    def __init__(self, python: Path, folder: Path, precision: str, *, threads: int) -> None:
        super().__init__(python, threads=threads)
        self._folder, self._hint = folder, PRECISIONS[precision][1]

    @classmethod
    def open(cls, python: Path, model: Path, precision: str, cache: Path, *, threads: int) -> Self:
        """Convert the model where that has not been done, and start the process."""
        return cls(python, convert(python, model, precision, cache), precision, threads=threads)

    def make_way(self, *, lead: bool, kv: str = "") -> Way:
        """One way: see openvino_worker.py. `kv` is the K/V cache's precision; by default its own choice."""
        words = ["continuous batching", *["the first request alone"] * lead, *[f"{kv} K/V"] * bool(kv)]
        load = {"folder": str(self._folder), "hint": self._hint, "kv": kv}
        return Way(", ".join(words), tuple(load.items()), (("lead", lead),))

    def ways(self, workload: Workload) -> list[Way]:
        """See Peer. It shares a prefix that an earlier request has computed, so one that runs first may pay."""
        shared = workload.num_distinct_prompt_tokens < workload.num_prompt_tokens
        return [self.make_way(lead=lead) for lead in ([False, True] if shared else [False])]

    def variations(self, way: Way, spinnings: Iterable[str]) -> list[Way]:
        """See Peer: every precision of the K/V cache. Its threads cannot be told how to wait."""
        lead = dict(way.run)["lead"]
        return [self.make_way(lead=lead, kv=kv) for kv in ("u8", self._hint)]


def convert(python: Path, model: Path, precision: str, cache: Path) -> Path:
    """Return `model` as OpenVINO wants it, under `cache`, made now if it is not there. Raises as convert_once does."""
    stored = PRECISIONS[precision][0]
    tool = python.with_name("optimum-cli")
    return convert_once(
        cache / f"{model.name}-openvino-{stored}",
        "openvino_model.xml",
        lambda target: [
            *(str(tool), "export", "openvino", "-m", str(model), "--task", "text-generation-with-past"),
            *("--weight-format", stored, *(GROUPS if stored == "int4" else ()), str(target)),
        ],
    )
