"""Structs of C as Python classes: a field is an annotation, and what a pointer leads to is kept alive."""

from __future__ import annotations

import ctypes
import inspect
from typing import Annotated, Any, TypeVar

import numpy as np

_Type = TypeVar("_Type", bound=type[ctypes.Structure])

Int32 = Annotated[int, ctypes.c_int32]
Float = Annotated[float, ctypes.c_float]
Pointer = Annotated[int | None, ctypes.c_void_p]  # reads as an address, None where it is NULL


def mirror(cls: _Type) -> _Type:
    """Make a structure's fields of the annotations of its class."""
    hints = inspect.get_annotations(cls, eval_str=True)
    cls._fields_ = [(name, getattr(hint, "__metadata__", (hint,))[0]) for name, hint in hints.items()]
    return cls


class Mirror(ctypes.Structure):
    """A struct of program.h, made of its fields' values by name; those not given are 0."""

    def __init__(self, **fields: Any) -> None:
        types = dict(self._fields_)  # type: ignore[arg-type]  # no bit fields
        if unknown := fields.keys() - types:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        super().__init__(**{name: _value(value, types[name]) for name, value in fields.items()})
        self.kept = fields  # the arrays and structures that pointers lead to


def _value(value: Any, kind: Any) -> Any:
    """Return what a field stores: of arrays and structures that it points to, the address."""
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    if kind is ctypes.c_void_p and isinstance(value, ctypes.Structure):
        return ctypes.addressof(value)
    return value
