"""What the forms of attention have in common: their inputs at the front, their cache, and their place in a layer."""

from __future__ import annotations

from typing import Protocol

import onnx_ir as ir

from .blocks import Blocks
from .writer import Dim


class Attention(Protocol):
    """One form of attention. Constructing it declares `input_ids`, `logits_indices` and the inputs of its own."""

    token_ids: ir.Value  # [T] int64: all tokens of the run, flat; or [B, S], and then so are the vectors of all layers
    logits_indices: ir.Value  # [L] int64: which of them get logits

    def packs(self, i: int) -> bool:
        """Whether layer i takes queries, keys and values side by side, as one."""
        ...

    def __call__(self, i: int, *heads: ir.Value) -> ir.Value:
        """Write layer i's keys and values to its cache, rotate and attend; return [T, heads * D].

        `heads` are queries [T, heads * D] or [T, heads, D], keys and values [T, kv_heads * D] or [T, kv_heads, D]; or
        where layer i packs them, all in one [T, (heads + 2 * kv_heads) * D].
        """
        ...

    def flat(self, x: ir.Value) -> ir.Value:
        """Return the vectors of all layers as [T, H]."""
        ...


class FlatTokens:
    """For forms whose tokens are flat from the beginning, and whose queries, keys and values come one by one."""

    def packs(self, i: int) -> bool:
        """See Attention."""
        return False

    def flat(self, x: ir.Value) -> ir.Value:
        """See Attention."""
        return x


def declare_cache(blocks: Blocks, i: int, shape: tuple[Dim, ...]) -> tuple[ir.Value, ir.Value]:
    """Declare the inputs past_key.{i} and past_value.{i}."""
    dtype = blocks.options.kv_data_type
    past_key = blocks.writer.input(f"past_key.{i}", dtype, shape)
    return past_key, blocks.writer.input(f"past_value.{i}", dtype, shape)


def return_cache(blocks: Blocks, i: int, key: ir.Value, value: ir.Value, shape: tuple[Dim, ...]) -> None:
    """Declare the outputs present_key.{i} and present_value.{i}, to be bound to the addresses of the inputs."""
    dtype = blocks.options.kv_data_type
    blocks.writer.output(key, f"present_key.{i}", dtype, shape)
    blocks.writer.output(value, f"present_value.{i}", dtype, shape)
