"""Load runners of the native backend, on the compiled kernels where they are and on their twins where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from isotoken.backends.native.backend import NativeBackend
from isotoken.backends.native.plugin import load_backend
from isotoken.backends.native.runner import NativeRunner
from isotoken.conformance.models import MODELS, write_checkpoint
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
from isotoken.core.types import Unsupported

from .twin_executor import Twins

MAX_MODEL_LEN = 96
SETTINGS: dict[str, Any] = {
    "dtype": "float32", "device": "cpu", "max_model_len": MAX_MODEL_LEN, "max_num_seqs": 8,
    "max_num_batched_tokens": 512, "num_blocks": 60, "num_threads": 1,
}  # fmt: skip
TOKENS = [(7 * i) % 120 for i in range(MAX_MODEL_LEN)]


def checkpoint(model: str, folder: Path) -> Checkpoint:
    """One of the suite's models, written on first use."""
    path = folder / model
    if not path.exists():
        write_checkpoint(MODELS[model], path)
    return Checkpoint.open(path)


def settings(**changes: Any) -> RunnerConfig:
    options = {"pack_cache": "off"} | changes.pop("options", {})
    return RunnerConfig(**(SETTINGS | changes), options=options)


def load_on_twins(source: Checkpoint, **changes: Any) -> NativeRunner:
    """A runner whose program runs in numpy."""
    return NativeBackend(Twins).load(source, settings(**changes))


def load(source: Checkpoint, **changes: Any) -> NativeRunner:
    """A runner on the compiled kernels; the test is skipped, saying why, where there are none."""
    try:
        load_backend()
    except Unsupported as error:
        pytest.skip(str(error))
    return NativeBackend().load(source, settings(**changes))
