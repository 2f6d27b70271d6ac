"""csrc/program.h in ctypes: the operations of a program, name for name, and what keeps their operands alive.

A field that is a pointer takes an address, a numpy array or another structure. A structure keeps what it was given
alive, so a program is safe for as long as its operations are. Shapes and layouts are written in program.h alone.
"""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

from .mirror import Float, Int32, Mirror, Pointer, mirror

PANEL = 32  # outputs of a weight matrix that lie together
TOKENS_A_BLOCK = 16  # block_size is a multiple of it
MAX_HEAD_DIM = 1024

FORM_F32, FORM_BF16, FORM_F16, FORM_I8, FORM_I8_SUMMED, FORM_I4_A8, FORM_I8_GROUPS, FORM_I4_GROUPS = range(8)
ROWS_TOKENS, ROWS_LOGITS, ROWS_EXPERT, ROWS_ROUTED, ROWS_CHOSEN = range(5)
OP_EMBED, OP_NORM, OP_ADD_NORM, OP_LINEAR, OP_HEADS, OP_ATTENTION, OP_ROUTE, OP_GATHER, OP_COMBINE = range(9)
ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU = range(4)
EPI_STORE, EPI_ADD, EPI_GATE = range(3)


@mirror
class Step(Mirror):
    """What differs from step to step: the arrays of core.batch.Batch, int32."""

    num_tokens: Int32
    num_requests: Int32
    num_logits: Int32
    table_width: Int32
    input_ids: Pointer
    positions: Pointer
    slot_mapping: Pointer
    query_start_loc: Pointer
    seq_lens: Pointer
    block_table: Pointer
    logits_indices: Pointer


@mirror
class Routing(Mirror):
    """Which token goes to which expert."""

    num_experts: Int32
    top_k: Int32
    experts: Pointer
    shares: Pointer
    starts: Pointer
    tokens: Pointer
    places: Pointer


@mirror
class Head(Mirror):
    """What every operation begins with."""

    kind: Int32
    rows: Int32
    expert: Int32
    reserved: Int32
    routing: Pointer


@mirror
class Operand(Mirror):
    """Activations as a Linear reads them."""

    values: Pointer
    scales: Pointer
    sums: Pointer
    form: Int32
    ld: Int32
    group: Int32
    reserved: Int32


@mirror
class Weights(Mirror):
    """A packed weight matrix."""

    values: Pointer
    scales: Pointer
    sums: Pointer
    form: Int32
    outputs: Int32
    inputs: Int32
    group: Int32


@mirror
class Cache(Mirror):
    """One layer's K/V memory."""

    keys: Pointer
    values: Pointer
    key_scales: Pointer
    value_scales: Pointer
    form: Int32
    block_size: Int32
    num_kv_heads: Int32
    head_dim: Int32


class Operation(Mirror):
    """A struct that begins with a Head, whose kind it sets."""

    KIND: ClassVar[int]
    head: Head

    def __init__(self, head: Head | None = None, **fields: Any) -> None:
        super().__init__(head=head or Head(), **fields)
        self.head.kind = self.KIND


@mirror
class Embed(Operation):
    """Rows of the embedding table."""

    KIND = OP_EMBED
    head: Head
    table: Pointer
    x: Pointer
    form: Int32
    size: Int32
    ld: Int32
    scale: Float


@mirror
class Norm(Operation):
    """Root mean square norm, or a change of form alone."""

    KIND = OP_NORM
    head: Head
    x: Pointer
    weight: Pointer
    out: Operand
    size: Int32
    ld: Int32
    eps: Float
    reserved: Int32


@mirror
class AddNorm(Operation):
    """Add what was normed to the residual."""

    KIND = OP_ADD_NORM
    head: Head
    x: Pointer
    y: Pointer
    weight: Pointer
    size: Int32
    ld_x: Int32
    ld_y: Int32
    eps: Float
    factor: Float
    reserved: Int32


@mirror
class Linear(Operation):
    """Activations times weights, and what follows at once."""

    KIND = OP_LINEAR
    head: Head
    input: Operand
    weights: Weights
    bias: Pointer
    out: Pointer
    out_form: Int32
    ld_out: Int32
    num_outputs: Int32
    epilogue: Int32
    activation: Int32
    factor: Float
    cap: Float
    reserved: Int32


@mirror
class Heads(Operation):
    """Projections into heads, rotated; keys and values into the cache."""

    KIND = OP_HEADS
    head: Head
    qkv: Pointer
    queries: Pointer
    q_norm: Pointer
    k_norm: Pointer
    rotations: Pointer
    cache: Cache
    ld: Int32
    ld_queries: Int32
    num_heads: Int32
    norm_all: Int32
    rotary_dim: Int32
    eps: Float
    query_scale: Float
    reserved: Int32


@mirror
class Attention(Operation):
    """Causal attention over the cache."""

    KIND = OP_ATTENTION
    head: Head
    queries: Pointer
    out: Operand
    cache: Cache
    ld_queries: Int32
    num_heads: Int32
    window: Int32
    cap: Float


@mirror
class Route(Operation):
    """Choose each token's experts."""

    KIND = OP_ROUTE
    head: Head
    logits: Pointer
    routing: Pointer
    ld: Int32
    normalize: Int32


@mirror
class Gather(Operation):
    """Lay tokens side by side, expert by expert."""

    KIND = OP_GATHER
    head: Head
    input: Operand
    out: Operand
    size: Int32
    reserved: Int32


@mirror
class Combine(Operation):
    """Sum what the experts said."""

    KIND = OP_COMBINE
    head: Head
    y: Pointer
    out: Pointer
    size: Int32
    ld_y: Int32
    ld_out: Int32
    reserved: Int32


OPERATIONS: tuple[type[Operation], ...] = (Embed, Norm, AddNorm, Linear, Heads, Attention, Route, Gather, Combine)
NUMBERS: dict[type[Mirror], int] = {  # what isotoken_sizeof calls them
    **{operation: operation.KIND for operation in OPERATIONS},
    **dict(zip((Step, Cache, Operand, Weights, Routing), range(100, 105), strict=True)),
}


class Program:
    """Operations in the order in which they run, as C takes them."""

    def __init__(self, operations: list[Operation]) -> None:
        self.operations = tuple(operations)
        self.pointers = (ctypes.c_void_p * len(operations))(*map(ctypes.addressof, operations))

    def __len__(self) -> int:
        """Return the number of operations."""
        return len(self.operations)
