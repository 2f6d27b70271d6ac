"""Limits that make no sense on any backend."""

from __future__ import annotations

from ..core.interfaces import RunnerConfig


def check_limits(backend: str, config: RunnerConfig) -> None:
    """Refuse numbers that cannot be meant. Raises ValueError naming the backend, the field and its value."""
    for name in ("max_num_seqs", "max_num_batched_tokens", "block_size"):
        if (value := getattr(config, name)) < 1:
            raise ValueError(f"backend {backend}: {name} is {value}: expected at least 1")
    for name in ("num_blocks", "num_threads"):
        if (value := getattr(config, name)) < 0:
            raise ValueError(f"backend {backend}: {name} is {value}: expected at least 1, or 0 for the default")
    if config.max_num_logits and config.max_num_logits < config.max_num_seqs:
        raise ValueError(
            f"backend {backend}: max_num_logits is {config.max_num_logits}: expected at least max_num_seqs or 0"
        )
