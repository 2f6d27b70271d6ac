"""llama.cpp: what converts its models, and its ways to run a workload.

Its programs are compiled from its sources, which no package brings: `llama-server` and `llama-quantize` must be on the
PATH, or in the folder that LLAMA_BIN names. The environment is for the conversion.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from isotoken.api.bench.workloads import Workload

from .environment import convert_once
from .process import Peer, Way

REQUIREMENTS = ("gguf", "numpy")
PRECISIONS = {"bfloat16": "bf16", "int8": "q8_0", "int4": "q4_0"}
"""Ours -> its own."""

CONVERTER = Path(__file__).with_name("llamacpp_convert.py")


class LlamaCpp(Peer):
    """llama-server with a slot for every request, continuous batching and flash attention, asked over HTTP."""

    name = "llama.cpp"
    worker = Path(__file__).with_name("llamacpp_worker.py")

    def __init__(self, python: Path, folder: Path, *, threads: int) -> None:
        super().__init__(python, threads=threads)
        self._load = (("server", program("llama-server")), ("model", str(folder / "model.gguf")))

    @classmethod
    def open(cls, python: Path, model: Path, precision: str, cache: Path, *, threads: int) -> Self:
        """Convert the model where that has not been done, and start the process."""
        return cls(python, convert(python, model, precision, cache), threads=threads)

    def ways(self, workload: Workload) -> list[Way]:
        """See Peer. It shares a prefix that a slot still holds, so a request that runs first may pay."""
        shared = workload.num_distinct_prompt_tokens < workload.num_prompt_tokens
        label = "server"
        ways = [Way(label, self._load, (("lead", False),))]
        return [*ways, Way(f"{label}, the first request alone", self._load, (("lead", True),))] if shared else ways

    def variations(self, way: Way, spinnings: Iterable[str]) -> list[Way]:
        """See Peer: none."""
        return []


def program(name: str) -> str:
    """Return the path of one of llama.cpp's programs. Raises RuntimeError that says where it is looked for."""
    folder = os.environ.get("LLAMA_BIN")
    found = shutil.which(name, path=folder)
    if found is None:
        where = f"in LLAMA_BIN={folder}" if folder else "on the PATH (or set LLAMA_BIN to its folder)"
        raise RuntimeError(f"llama.cpp: no {name} {where}; compile it from llama.cpp's sources")
    return found


def convert(python: Path, model: Path, precision: str, cache: Path) -> Path:
    """Return a folder with `model` as model.gguf, under `cache`, made now if it is not there."""

    def command(target: Path) -> Sequence[str]:
        kind = PRECISIONS[precision]
        quantise = () if kind == "bf16" else (program("llama-quantize"), kind)
        return [str(python), str(CONVERTER), str(model), str(target), *quantise]

    return convert_once(cache / f"{model.name}-llamacpp-{PRECISIONS[precision]}", "model.gguf", command)
