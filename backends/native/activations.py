"""Memory of a step's activations: every buffer's place, for the largest step that there may be.

What attention and the MLP need lies in the same memory, as one is done before the other begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...core.decoder_spec import DecoderSpec
from ...core.interfaces import RunnerInfo
from ...kernels.cpu import program as kernels
from .memory import LINE, Arena, Layout, round_up
from .precision import DTYPES, Precision

WIDTH = 32  # a Linear reads rows filled up to a multiple of it
F32 = kernels.FORM_F32


@dataclass(frozen=True, slots=True)
class Buffer:
    """Rows of activations: how many, of how many elements, in which form."""

    name: str
    rows: int
    size: int
    form: int
    group: int = 0

    @property
    def ld(self) -> int:
        """Elements from row to row: one line more than needed, so that rows do not all fall on the same cache sets."""
        return round_up(self.size, WIDTH) + LINE // DTYPES[self.form].itemsize

    @property
    def num_sums(self) -> int:
        """Sums of a row's groups, where the form has them."""
        return -(-round_up(self.size, WIDTH) // self.group) if self.form == kernels.FORM_I8_SUMMED else 0

    def place(self, layout: Layout) -> None:
        """Take room for the rows, and their scales and sums."""
        layout.add(self.name, self.rows * self.ld * DTYPES[self.form].itemsize + LINE)
        if self.form in (kernels.FORM_I8, kernels.FORM_I8_SUMMED):
            layout.add(f"{self.name}/scales", 4 * self.rows)
        if self.num_sums:
            layout.add(f"{self.name}/sums", 4 * self.rows * self.num_sums)


def buffers(spec: DecoderSpec, precision: Precision, info: RunnerInfo) -> tuple[list[Buffer], ...]:
    """Return the buffers of the whole step, of attention, and of the MLP or the experts."""
    tokens, hidden, between = info.max_num_batched_tokens, spec.hidden_size, precision.between
    most_logits = min(tokens, info.max_num_logits)

    def operand(name: str, rows: int, size: int) -> Buffer:
        return Buffer(name, rows, size, precision.operand, group=WIDTH)

    whole = [
        Buffer("x", tokens, hidden, F32),
        Buffer("chosen_x", most_logits, hidden, F32),
        operand("h", tokens, hidden),
        Buffer("y", tokens, hidden, F32),
    ]
    attention = [
        Buffer("qkv", tokens, spec.q_size + 2 * spec.kv_size, F32),
        Buffer("queries", tokens, spec.q_size, precision.queries),
        Buffer("attended", tokens, spec.q_size, between),
        Buffer("attended32", tokens, spec.q_size, F32),  # of the last layer, before rows are chosen
        operand("attended_operand", tokens, spec.q_size),
    ]
    mlp: list[Buffer] = []
    if any(not layer.num_experts for layer in spec.layers):
        mlp = [
            Buffer("act", tokens, spec.intermediate_size, between),
            operand("act_operand", tokens, spec.intermediate_size),
        ]
    return whole, attention, mlp, _of_experts(spec, precision, tokens, operand_of=operand)


def _of_experts(
    spec: DecoderSpec, precision: Precision, tokens: int, operand_of: Callable[[str, int, int], Buffer]
) -> list[Buffer]:
    most = max(layer.num_experts for layer in spec.layers)
    if not most:
        return []
    places, size = tokens * spec.moe_top_k, spec.moe_intermediate_size
    return [
        Buffer("h32", tokens, spec.hidden_size, F32),
        Buffer("router_logits", tokens, most, F32),
        operand_of("gathered", places, spec.hidden_size),
        Buffer("expert_act", places, size, precision.between),
        operand_of("expert_act_operand", places, size),
        Buffer("expert_y", places, spec.hidden_size, F32),
    ]


def _place_routing(layout: Layout, spec: DecoderSpec, tokens: int) -> None:
    """Take room for what Route writes."""
    for name in ("experts", "shares", "tokens", "places"):
        layout.add(f"routing/{name}", 4 * tokens * spec.moe_top_k)
    layout.add("routing/starts", 4 * (1 + max(layer.num_experts for layer in spec.layers)))


class Activations:
    """The buffers in memory, which the system commits as far as steps reach."""

    def __init__(self, spec: DecoderSpec, precision: Precision, info: RunnerInfo) -> None:
        """Lay them out; `allocate` reserves the memory."""
        groups = buffers(spec, precision, info)
        self._buffers = {buffer.name: buffer for group in groups for buffer in group}
        self._layout = Layout()
        parts = [Layout() for _ in groups]
        for group, part in zip(groups, parts, strict=True):
            for buffer in group:
                buffer.place(part)
        if spec.moe_top_k:
            _place_routing(parts[-1], spec, info.max_num_batched_tokens)
        self._layout.over(parts[0])
        self._layout.over(*parts[1:])
        self._arena: Arena | None = None

    @property
    def num_bytes(self) -> int:
        """Memory of the largest step."""
        return self._layout.num_bytes

    def allocate(self) -> None:
        """Reserve the memory."""
        self._arena = Arena(self.num_bytes)

    def address(self, name: str) -> int:
        """Where a buffer begins."""
        assert self._arena is not None
        return self._arena.address + self._layout.offset(name)

    def ld(self, name: str) -> int:
        """Elements from row to row of a buffer."""
        return self._buffers[name].ld

    def size(self, name: str) -> int:
        """Elements in a row of a buffer."""
        return self._buffers[name].size

    def form(self, name: str) -> int:
        """How a buffer's numbers lie."""
        return self._buffers[name].form

    def operand(self, name: str) -> kernels.Operand:
        """Describe a buffer to an operation."""
        buffer = self._buffers[name]
        return kernels.Operand(
            values=self.address(name),
            scales=self.address(f"{name}/scales") if f"{name}/scales" in self._layout else None,
            sums=self.address(f"{name}/sums") if f"{name}/sums" in self._layout else None,
            form=buffer.form,
            ld=buffer.ld,
            group=buffer.group,
        )

    def close(self) -> None:
        """Give the memory back."""
        if self._arena is not None:
            self._arena.close()
