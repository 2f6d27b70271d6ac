"""How many rows a runner keeps."""

from __future__ import annotations

from ...core.interfaces import RunnerConfig


def num_rows(config: RunnerConfig, max_model_len: int) -> int:
    """Return the rows of max_model_len tokens that the wish for blocks comes to.

    Blocks of a whole row are taken at their word. Smaller ones say how many tokens are to be held, which are rounded
    down to rows, yet to one row for each request at least: a request without a row of its own cannot run. Nothing said
    (num_blocks 0): a row for each request.
    """
    if config.num_blocks == 0:
        return config.max_num_seqs
    if config.block_size >= max_model_len:
        return config.num_blocks
    return max(config.num_blocks * config.block_size // max_model_len, config.max_num_seqs)
