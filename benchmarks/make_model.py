"""Make a seeded random Llama to measure speed on: python -m benchmarks.make_model 125m FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from isotoken.api.bench.models import SIZES, ensure_model, make_model

__all__ = ["SIZES", "ensure_model", "make_model"]


def main() -> int:
    """Make one model."""
    if len(sys.argv) != 3 or sys.argv[1] not in SIZES:
        print(f"usage: python -m benchmarks.make_model {{{','.join(SIZES)}}} FOLDER", file=sys.stderr)
        return 2
    make_model(sys.argv[1], Path(sys.argv[2]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
