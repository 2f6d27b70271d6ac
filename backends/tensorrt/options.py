"""The backend's own options (RunnerConfig.options), read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to build and run engines."""

    engine_cache: Path | None  # where engines and timings are kept; None: nowhere
    workspace_mib: int  # scratch memory that the builder's kernels may use
    optimization_level: int  # 0 to 5: how long the builder looks for fast kernels
    refit: bool  # keep weights out of the engine file and put them in at load
    timing_cache: Literal["on", "strict", "off"]  # strict: build only with kernels timed before
    cuda_graphs: bool
    verify_tokens: int  # requests of so many query tokens (drafts) share a run; longer ones run alone

    @classmethod
    def read(cls, options: Mapping[str, str]) -> Options:
        """Validate. Raises ValueError naming the option, its value and what is possible."""
        for key in options:
            if key not in DEFAULTS:
                raise ValueError(f"backend tensorrt: unknown option {key!r}; the options are: {', '.join(DEFAULTS)}")
        values = {**DEFAULTS, **options}
        return cls(
            engine_cache=_folder(values["engine_cache"]),
            workspace_mib=_number(values, "workspace_mib", 1, 1 << 20),
            optimization_level=_number(values, "optimization_level", 0, 5),
            refit=_choice(values, "refit", ("on", "off")) == "on",
            timing_cache=_timing(values),
            cuda_graphs=_choice(values, "cuda_graphs", ("on", "off")) == "on",
            verify_tokens=_number(values, "verify_tokens", 2, 64),
        )


DEFAULTS: Mapping[str, str] = {
    "engine_cache": "auto",
    "workspace_mib": "4096",
    "optimization_level": "3",
    "refit": "off",
    "timing_cache": "on",
    "cuda_graphs": "on",
    "verify_tokens": "8",
}


def _folder(value: str) -> Path | None:
    if value == "off":
        return None
    if value != "auto":
        return Path(value).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "isotoken" / "tensorrt"


def _number(values: Mapping[str, str], key: str, least: int, most: int) -> int:
    text = values[key]
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"backend tensorrt: option {key} is {text!r}, expected a number from {least} to {most}")
    return int(text)


def _choice(values: Mapping[str, str], key: str, possible: tuple[str, ...]) -> str:
    if values[key] not in possible:
        raise ValueError(f"backend tensorrt: option {key} is {values[key]!r}, expected one of {', '.join(possible)}")
    return values[key]


def _timing(values: Mapping[str, str]) -> Literal["on", "strict", "off"]:
    match _choice(values, "timing_cache", ("on", "strict", "off")):
        case "strict":
            return "strict"
        case "off":
            return "off"
        case _:
            return "on"
