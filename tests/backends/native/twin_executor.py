"""An executor that runs programs with the kernels' numpy twins: slow, and needs no compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isotoken.backends.native.executor import Prepared
from isotoken.backends.native.options import Options
from isotoken.core.fast_sampler import FastSampler
from isotoken.kernels.cpu import program as kernels
from isotoken.kernels.cpu import twins
from isotoken.kernels.cpu.twins.pack import pack, pack_quantised


class Twins:
    """Executor over kernels/cpu/twins."""

    isa = "twins"

    def __init__(self, options: Options, num_threads: int, cpus: Sequence[int] | None) -> None:
        pass

    def prepare(self, operations: Sequence[kernels.Operation]) -> Prepared:
        kept = list(operations)
        return lambda step: twins.run(kept, step)

    def pack(self, *arguments: Any) -> None:
        pack(*arguments)

    def pack_quantised(self, *arguments: Any) -> None:
        pack_quantised(*arguments)

    def sampler(self) -> FastSampler:
        return FastSampler()

    def close(self) -> None:
        pass
