"""Which rows of its activations an operation handles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..program import Routing
from .memory import array

ROWS_TOKENS, ROWS_LOGITS, ROWS_EXPERT, ROWS_ROUTED, ROWS_CHOSEN = range(5)  # enum Rows of program.h


def routing_of(address: int) -> Routing:
    """The Routing at an address."""
    return Routing.from_address(address)


def selected(head: Any, step: Any) -> slice:
    """The rows that an operation writes, and, but for the Norm that picks the logits' rows, reads."""
    if head.rows == ROWS_TOKENS:
        return slice(0, step.num_tokens)
    if head.rows in (ROWS_LOGITS, ROWS_CHOSEN):
        return slice(0, step.num_logits)
    routing = routing_of(head.routing)
    if head.rows == ROWS_ROUTED:
        return slice(0, step.num_tokens * routing.top_k)
    starts = array(routing.starts, (routing.num_experts + 1,), np.int32)
    return slice(int(starts[head.expert]), int(starts[head.expert + 1]))


def token_array(address: int, step: Any) -> NDArray[np.int32]:
    """One of Step's arrays [T]."""
    return array(address, (step.num_tokens,), np.int32)
