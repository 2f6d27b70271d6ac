"""A plugin of backends that are wrong, or quantise, on purpose: the reference with its logits changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from isotoken.backends.reference.backend import ReferenceBackend
from isotoken.core.batch import Batch
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
from isotoken.core.rounded import RoundedCheckpoint
from isotoken.plugins.hookspecs import hookimpl

ISOTOKEN_API = "1.0"

Change = Callable[[Any, Batch], Any]


class Runner:
    """The reference's, but for the logits."""

    def __init__(self, inner: Any, change: Change) -> None:
        self._inner, self._change = inner, change
        self.info, self.sampler = inner.info, None

    def forward(self, batch: Batch) -> Any:
        return self._change(self._inner.forward(batch), batch)

    def close(self) -> None:
        self._inner.close()


class Backend:
    """`weights` are what it computes with, whatever it was asked for; None: the checkpoint's own."""

    def __init__(self, name: str, change: Change, weights: str | None = None) -> None:
        self.name, self._change, self._weights = name, change, weights
        quantizations = frozenset({"int8"} if "int8" in name else ())
        self.capabilities = replace(ReferenceBackend.capabilities, quantizations=quantizations)

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> Runner:
        options = {"sums": "blas"}
        if self._weights is not None:
            checkpoint = RoundedCheckpoint(checkpoint.path, self._weights)
        inner = ReferenceBackend().load(checkpoint, replace(config, quantization=None, options=options))
        return Runner(inner, self._change)


def next_token(logits: Any, _: Batch) -> Any:
    """Every token is the one after the right one."""
    return np.roll(logits, 1, axis=-1)


def late(logits: Any, batch: Batch) -> Any:
    """Wrong far into a sequence only."""
    far = batch.positions[batch.logits_indices] > 40
    return np.where(far[:, None], -logits, logits)


def coarse(logits: Any, _: Batch) -> Any:
    """What a quantised model does: other logits, the same for a request in any company."""
    return np.round(logits / 2) * 2 + np.linspace(0, 1, logits.shape[-1], dtype=logits.dtype)


def crowded(logits: Any, batch: Batch) -> Any:
    """Logits that depend on who else is in the batch."""
    return logits if len(batch.row_ids) == 1 else np.roll(logits, 1, axis=-1)


def fragile(logits: Any, batch: Batch) -> Any:
    """Fails where a request is long."""
    if batch.seq_lens.max() > 40:
        raise RuntimeError("too long for me")
    return logits


BACKENDS = {
    "wrong": next_token,
    "late": late,
    "fragile": fragile,
    "good-int8": coarse,
    "crowded-int8": crowded,
    "wrong-int8": next_token,
}


WEIGHTS = {"rounded-int8": "int8", "coarse-int8": "int4"}
"""Backends that take int8 weights for what is written behind them."""


@hookimpl
def register_backends(register: Any) -> None:
    for name, weights in WEIGHTS.items():
        register(name, lambda name=name, weights=weights: Backend(name, lambda logits, _: logits, weights))
    for name, change in BACKENDS.items():
        register(name, lambda name=name, change=change: Backend(name, change))
