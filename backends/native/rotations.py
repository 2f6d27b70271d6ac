"""Cosines and sines of rotary embeddings, computed as far as positions reach: most contexts never fill up."""

from __future__ import annotations

import numpy as np

from ...core.decoder_spec import DecoderSpec, RopeSpec, inverse_frequencies
from .memory import Arena, Array

STEP = 1024  # positions computed at a time


class Rotations:
    """For each kind of rope a table [max_model_len, rotary_dim] float32: cosines, then sines."""

    def __init__(self, spec: DecoderSpec, max_model_len: int) -> None:
        ropes = dict.fromkeys(layer.rope for layer in spec.layers if layer.rope is not None)
        self.covered = 0
        """Positions whose rotations are there."""
        self._tables: dict[RopeSpec, tuple[Arena, Array]] = {}
        self._frequencies = {rope: inverse_frequencies(rope, max_model_len) for rope in ropes}
        for rope in ropes:
            arena = Arena(max_model_len * rope.rotary_dim * 4)
            self._tables[rope] = arena, arena.view(0, (max_model_len, rope.rotary_dim), np.float32)
        self._max_model_len = max_model_len

    @property
    def num_bytes(self) -> int:
        """Memory once all positions are in use."""
        return sum(arena.num_bytes for arena, _ in self._tables.values())

    def cover(self, num_positions: int) -> None:
        """Make sure that the rotations of so many positions are there. ValueError beyond max_model_len."""
        if num_positions > self._max_model_len:
            raise ValueError(f"backend native: position {num_positions - 1} of at most {self._max_model_len}")
        while self.covered < num_positions:
            part = slice(self.covered, min(self.covered + STEP, self._max_model_len))
            for rope, (_, table) in self._tables.items():
                inv_freq, factor = self._frequencies[rope]
                angles = np.arange(part.start, part.stop, dtype=np.float64)[:, None] * inv_freq
                table[part, : len(inv_freq)] = np.cos(angles) * factor
                table[part, len(inv_freq) :] = np.sin(angles) * factor
            self.covered = part.stop

    def address(self, rope: RopeSpec | None) -> int | None:
        """Where a rope's table lies; None where nothing turns."""
        return None if rope is None else self._tables[rope][0].address

    def close(self) -> None:
        """Give the memory back."""
        for arena, _ in self._tables.values():
            arena.close()
        self._tables = {}
