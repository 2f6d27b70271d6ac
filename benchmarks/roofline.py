"""What the machine could do at most, measured with torch in the same run, and what a workload needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from isotoken.core.checkpoint import Checkpoint

from .workloads import Workload

READ_BYTES = 1 << 29
MATRIX = 2048


@dataclass(frozen=True, slots=True)
class Roof:
    """The best of some repetitions of reading memory and of multiplying matrices."""

    bytes_per_second: float
    flops_per_second: float  # in the compute dtype


def measure_roof(device: str = "cpu", dtype: str = "bfloat16", repetitions: int = 5) -> Roof:
    """Read half a GiB, and multiply 2048 x 2048 matrices as fast as torch can."""
    data = torch.ones(READ_BYTES // 8, dtype=torch.int64, device=device)
    x, y = (torch.randn(MATRIX, MATRIX, device=device).to(getattr(torch, dtype)) for _ in range(2))
    seconds = _best(data.max, device, repetitions)  # vectorised, and bound by memory
    product = _best(lambda: x @ y, device, 4 * repetitions)
    return Roof(READ_BYTES / seconds, 2 * MATRIX**3 / product)


def _best(work: Callable[[], object], device: str, repetitions: int) -> float:
    best = float("inf")
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint's parameters, as far as they cost time."""

    layer_parameters: int  # used for every token
    head_parameters: int  # used for every output token

    @classmethod
    def of(cls, folder: Path) -> Model:
        """Count a dense checkpoint's."""
        checkpoint = Checkpoint.open(folder)
        sizes = {name: checkpoint.tensor(name).size for name in checkpoint.names()}
        layers = sum(size for name, size in sizes.items() if name.startswith("layers."))
        return cls(layers, sizes["embed_tokens"])

    def roof_rate(self, workload: Workload, roof: Roof, item_bytes: int) -> float:
        """Return the tokens a second that the roof allows in the figure that the workload is about.

        W1: each decoded token reads all weights once (K/V left out). Others: every distinct prompt token (W4's shared
        prefix counts once) and every output token is multiplied with all layers, output tokens with the head too;
        attention is left out.
        """
        if workload.name == "W1":
            return roof.bytes_per_second / (item_bytes * (self.layer_parameters + self.head_parameters))
        distinct = num_distinct_prompt_tokens(workload)
        outputs = workload.num_output_tokens
        flops = 2 * ((distinct + outputs) * self.layer_parameters + outputs * self.head_parameters)
        return outputs / (flops / roof.flops_per_second)


def num_distinct_prompt_tokens(workload: Workload) -> int:
    """Prompt tokens with the prefix that all tasks share counted once."""
    prompts = [task.prompt for task in workload.tasks]
    shared = 0
    for column in zip(*prompts, strict=False):
        if len(set(column)) > 1 or len(prompts) == 1:
            break
        shared += 1
    return shared + sum(len(prompt) - shared for prompt in prompts)
