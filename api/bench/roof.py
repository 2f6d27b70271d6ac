"""What the machine could do at most, measured in every round, and what a workload needs of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

from ...core.checkpoint import Checkpoint
from ...core.quantization import SCHEMES
from .workloads import Workload

ITEM_BYTES = {"float64": 8.0, "float32": 4.0, "bfloat16": 2.0, "float16": 2.0}

RoofKind = Literal["memory", "arithmetic"]


@dataclass(frozen=True, slots=True)
class Roof:
    """Reading memory, as much of it as the model's weights (so in the cache where those are), and matrix products."""

    bytes_per_second: float
    flops_per_second: dict[str, float]  # by dtype; a dtype that nothing here can multiply in is left out

    @classmethod
    def best(cls, roofs: Sequence[Roof]) -> Roof:
        """The best of some rounds: on a machine that others use a single one may be far too low."""
        dtypes = {dtype for roof in roofs for dtype in roof.flops_per_second}
        return cls(
            max(roof.bytes_per_second for roof in roofs),
            {dtype: max(roof.flops_per_second.get(dtype, 0.0) for roof in roofs) for dtype in sorted(dtypes)},
        )


class RoofMeter:
    """Measures the roof in a process of its own, see probe.py. Use as a context manager."""

    def __init__(self, num_bytes: int, dtypes: Iterable[str], device: str = "cpu", threads: int = 1) -> None:
        asked = {"bytes": num_bytes, "dtypes": sorted(set(dtypes)), "device": device, "threads": threads}
        libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.probe", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict.fromkeys(libraries, str(threads)),
        )

    def measure(self) -> Roof:
        """Take about half a second. Raises RuntimeError if the process has ended."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            print(file=process.stdin, flush=True)
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the process that measures the machine ended with code {process.wait()}")
        return Roof(**json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def __enter__(self) -> RoofMeter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint's parameters, as far as they cost time."""

    layer_parameters: int  # used for every token
    head_parameters: int  # used for every output token
    num_bytes: int = 0  # of the checkpoint

    @classmethod
    def of(cls, folder: Path) -> Model:
        """Count a checkpoint's; of experts those that a token uses."""
        checkpoint = Checkpoint.open(folder)
        spec = checkpoint.spec
        num_experts = max((layer.num_experts for layer in spec.layers), default=0)
        share = spec.moe_top_k / num_experts if num_experts else 1.0
        sizes = {name: prod(checkpoint.shape(name)) for name in checkpoint.names() if name.startswith("layers.")}
        layers = sum(size * (share if ".experts." in name else 1) for name, size in sizes.items())
        return cls(int(layers), prod(checkpoint.shape("lm_head")), checkpoint.num_bytes)

    def roof_rate(self, workload: Workload, roof: Roof, dtype: str, quantization: str | None = None) -> float | None:
        """Return the tokens a second that the roof allows in the figure that the workload is about; None: not known.

        A single stream reads all weights once for each token (K/V left out). Others: every distinct prompt token (a
        shared prefix counts once) and every output token is multiplied with all layers, output tokens with the head
        too; attention is left out, so that a fraction of it errs on the low side.
        """
        if roof_kind(workload) == "memory":
            parameters = self.layer_parameters + self.head_parameters
            return roof.bytes_per_second / (weight_bytes(dtype, quantization) * parameters)
        flops_per_second = roof.flops_per_second.get(arithmetic_dtype(dtype, quantization))
        if flops_per_second is None:
            return None
        distinct, outputs = workload.num_distinct_prompt_tokens, workload.num_output_tokens
        if workload.figure == "prompt":
            outputs -= len(workload.tasks)  # the first is drawn from the prompt's own last position
        multiplied = (distinct + outputs) * self.layer_parameters + workload.num_output_tokens * self.head_parameters
        counted = workload.num_prompt_tokens if workload.figure == "prompt" else workload.num_output_tokens
        return counted / (2 * multiplied / flops_per_second)


def roof_kind(workload: Workload) -> RoofKind:
    """What bounds it."""
    return "memory" if workload.figure == "decode" else "arithmetic"


def weight_bytes(dtype: str, quantization: str | None) -> float:
    """Bytes that are read for a weight, its share of a block's scale included."""
    if quantization is None:
        return ITEM_BYTES[dtype]
    scheme = SCHEMES.get(quantization)
    return 1.0 if scheme is None else scheme.bytes_per_weight(ITEM_BYTES[dtype])


def arithmetic_dtype(dtype: str, quantization: str | None) -> str:
    """What products are computed in: integers where weights are quantised, for that is the higher roof."""
    return dtype if quantization is None else "int8"
