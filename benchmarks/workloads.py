"""The workloads, as `isotoken bench` has them; here under the name that the benchmarks and peers know them by."""

from __future__ import annotations

from isotoken.api.bench.workloads import (
    ALL_WORKLOADS,
    WORKLOADS,
    Task,
    Workload,
    make_workload,
    small,
    static_batches,
)

__all__ = ["ALL_WORKLOADS", "WORKLOADS", "Task", "Workload", "make_workload", "small", "static_batches"]
