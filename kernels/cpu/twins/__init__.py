"""The CPU kernels in numpy: the same structs, the same arithmetic, one plain function for each operation.

They are the oracle of the C++ kernels' tests and run whole programs where no compiled library is, slowly. Sums are in
float64, so a twin is at least as near to the exact result as any order of float32 additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from .. import program as p

TWINS = {
    p.OP_EMBED: ("embed", "embed"),
    p.OP_NORM: ("norm", "norm"),
    p.OP_ADD_NORM: ("norm", "add_norm"),
    p.OP_LINEAR: ("linear", "linear"),
    p.OP_HEADS: ("heads", "heads"),
    p.OP_ATTENTION: ("attention", "attention"),
    p.OP_ROUTE: ("route", "route"),
    p.OP_GATHER: ("route", "gather"),
    p.OP_COMBINE: ("route", "combine"),
}


def twin(kind: int) -> Callable[[Any, p.Step], None]:
    """Return the function (operation, step) of a kind of operation."""
    module, name = TWINS[kind]
    function: Callable[[Any, p.Step], None] = getattr(import_module(f".{module}", __name__), name)
    return function


def run(program: Iterable[p.Operation], step: p.Step) -> None:
    """Run the operations one after another, reading and writing the memory that they point to."""
    for operation in program:
        twin(operation.head.kind)(operation, step)
