"""What backends share that keep each request in one row of K/V memory: how many rows, and a batch cut into runs."""

from __future__ import annotations

from .runs import Cover, Run, aligned, plan_runs, rows_of, tight
from .size import num_rows

__all__ = ["Cover", "Run", "aligned", "num_rows", "plan_runs", "rows_of", "tight"]
