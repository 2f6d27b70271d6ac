"""The options of the native backend, read from RunnerConfig.options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DEFAULTS: Mapping[str, str] = {"pin": "off", "spin_us": "200", "isa": "auto", "pack_cache": "off"}
MAX_SPIN_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be set besides the configuration that every backend has.

    pin: `on` ties each thread to a CPU of its own, of those that the process may use; a list such as `0,2,4` says
    which, one for each thread. Worth it on a machine that does nothing else.
    spin_us: microseconds that a thread waits in a loop for more work before it sleeps.
    isa: the instruction set, for tests and comparisons; `auto` is the best that runs here.
    pack_cache: where quantised weights are kept for the next start: `auto` is ~/.cache/isotoken/native, else a
    folder, or `off`. Packing takes no longer than reading what was packed, so this pays where the disk is slow: the
    next start reads a half or a quarter as much.
    """

    pin: tuple[int, ...] | bool
    spin_us: int
    isa: str  # "" for auto
    pack_cache: Path | None  # None: off

    @classmethod
    def read(cls, options: Mapping[str, str]) -> Options:
        """Check keys and values. Raises ValueError that lists what there is."""
        for key in options:
            if key not in DEFAULTS:
                raise ValueError(f"backend native: unknown option {key!r}; the options are: {', '.join(DEFAULTS)}")
        values = {**DEFAULTS, **options}
        return cls(
            pin=_pin(values["pin"]),
            spin_us=_spin(values["spin_us"]),
            isa="" if values["isa"] == "auto" else values["isa"],
            pack_cache=_folder(values["pack_cache"]),
        )


def settle_threads(wanted: int, pin: tuple[int, ...] | bool) -> tuple[int, tuple[int, ...] | None]:
    """Return how many threads there are to be (0: as many as may run at once) and the CPU of each, if pinned.

    Raises ValueError where CPUs were named and are not one for each thread.
    """
    if isinstance(pin, tuple):
        if wanted not in (0, len(pin)):
            raise ValueError(f"backend native: option pin names {len(pin)} CPUs for {wanted} threads: one for each")
        return len(pin), pin
    cpus = usable_cpus()
    count = wanted or min(len(cpus), cpu_quota())
    if not pin:
        return count, None
    if count > len(cpus):
        raise ValueError(f"backend native: option pin is on, and {count} threads cannot share {len(cpus)} CPUs")
    return count, tuple(cpus[:count])


@cache
def usable_cpus() -> tuple[int, ...]:
    """The CPUs that this process may run on, as it began: a runner that is pinned leaves the others as many."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many CPUs' time the container may use, at least one; a large number where nothing limits it."""
    try:
        quota, period = file.read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no container, or "max"
        return 1 << 16


def _pin(value: str) -> tuple[int, ...] | bool:
    if value in ("on", "off"):
        return value == "on"
    words = value.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise ValueError(f"backend native: option pin is {value!r}, expected off, on, or CPUs such as 0,1,2")
    cpus = tuple(int(word) for word in words)
    if len(set(cpus)) < len(cpus) or not set(cpus) <= set(usable_cpus()):
        here = ",".join(map(str, usable_cpus()))
        raise ValueError(f"backend native: option pin is {value!r}, expected different CPUs out of {here}")
    return cpus


def _spin(value: str) -> int:
    if not value.isdecimal() or int(value) > MAX_SPIN_US:
        raise ValueError(f"backend native: option spin_us is {value!r}, expected a number from 0 to {MAX_SPIN_US}")
    return int(value)


def _folder(value: str) -> Path | None:
    if value == "off":
        return None
    if value != "auto":
        return Path(value).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "isotoken" / "native"
