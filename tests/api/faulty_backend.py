"""A plugin whose backend is the reference backend with faults: prompts that kill, hang or raise, and bad starts.

A prompt is at fault when it holds one token id three times in a row: which one says how. Decoding alone cannot set it
off, since a decode step has one token.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from isotoken.backends.reference.backend import ReferenceBackend
from isotoken.core.capabilities import unsupported
from isotoken.plugins.hookspecs import Register, hookimpl

ISOTOKEN_API = "1.0"
KILLS, HANGS, RAISES = 40, 41, 42


class FaultyRunner:
    """Looks at every query before it is computed."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.info = runner.info
        self.sampler = runner.sampler

    def forward(self, batch: Any) -> Any:
        for start, end in zip(batch.query_start_loc, batch.query_start_loc[1:], strict=False):
            ids = batch.input_ids[start:end].tolist()
            for token_id in {a for a, b, c in zip(ids, ids[1:], ids[2:], strict=False) if a == b == c}:
                self._fault(token_id)
        return self._runner.forward(batch)

    def _fault(self, token_id: int) -> None:
        if token_id == KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        elif token_id == HANGS:
            (Path(os.environ["FAULTY_DIR"]) / "hanging").touch()
            time.sleep(3600)
        elif token_id == RAISES:
            raise RuntimeError("this prompt cannot be computed")

    def close(self) -> None:
        self._runner.close()


class FaultyBackend(ReferenceBackend):
    """Counts its starts, and fails them while there is a file that says so."""

    name = "faulty"

    def load(self, checkpoint: Any, config: Any) -> Any:
        folder = Path(os.environ["FAULTY_DIR"])
        with (folder / "starts").open("a") as file:
            file.write("x")
        if (folder / "no-start").exists():
            raise ValueError("the device is gone")
        if (folder / "die-at-start").exists():
            os._exit(9)
        return FaultyRunner(super().load(checkpoint, config))


class ScorelessBackend(ReferenceBackend):
    """Declares that it has no logits of prompt positions."""

    name = "scoreless"

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = replace(self.capabilities, prompt_logprobs=unsupported("only the last position has logits"))


@hookimpl
def register_backends(register: Register) -> None:
    register("faulty", FaultyBackend, description="the reference backend with faults")
    register("scoreless", ScorelessBackend, description="the reference backend, that does not score prompts")


@hookimpl
def on_step(stats: Any) -> None:
    with (Path(os.environ["FAULTY_DIR"]) / "steps").open("a") as file:
        file.write(f"{stats.num_requests}\n")
    raise RuntimeError("a bad hook")  # must not harm the engine
