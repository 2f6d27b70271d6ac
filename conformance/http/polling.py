"""Ask again and again until something is so, and read what /metrics says."""

from __future__ import annotations

import time
from collections.abc import Callable

from .server import Server

_INTERVAL = 0.05  # seconds

_NAMES = {
    "running": ("llm_requests_running", "vllm:num_requests_running", "llamacpp:requests_processing"),
    "waiting": ("llm_requests_waiting", "vllm:num_requests_waiting", "llamacpp:requests_deferred"),
    "generated": ("llm_tokens_generated_total", "vllm:generation_tokens_total", "llamacpp:tokens_predicted_total"),
}


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until a condition holds; False where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_INTERVAL)
    return True


def sample(server: Server, name: str) -> float | None:
    """Add up the samples of a metric, whatever their labels; None where there is none."""
    values = []
    for line in server.get("/metrics").text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.split("{")[0] == name:
            values.append(float(value))
    return sum(values) if values else None


def meaning(server: Server, what: str) -> float | None:
    """What is running, waiting or generated, by whichever name the server knows it under."""
    found = (sample(server, name) for name in _NAMES[what])
    return next((value for value in found if value is not None), None)
