"""Sizes in bytes as people write them: 512MiB, 2 GiB, 1.5e9."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}


def read_size(value: Any) -> Any:
    """Turn "2GiB" into a number of bytes; what is no text is passed on. Raises ValueError."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?)\s*([a-z]*)\s*", value.lower())
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{value!r} is no size: write it as 512MiB, 2GiB or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2]])


def write_size(num_bytes: int) -> str:
    """Write a number of bytes for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(num_bytes) >= size:
            return f"{num_bytes / size:.2f} {unit}"
    return f"{num_bytes} B"


Size = Annotated[int, BeforeValidator(read_size), Field(ge=0)]
"""A field that holds bytes and takes either form."""
