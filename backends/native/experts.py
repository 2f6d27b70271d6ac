"""A mixture of experts as operations: route, gather each expert's tokens, transform, add up by their shares."""

from __future__ import annotations

from collections.abc import Iterator

from ...kernels.cpu import program as kernels
from ...kernels.cpu.program import Head, Operation
from .parts import F32, Parts


def mixture(parts: Parts, i: int) -> Iterator[Operation]:
    """Leave what the experts of layer i make of every token in buffer y."""
    at, activations = f"layers.{i}.", parts.activations
    num_experts = parts.spec.layers[i].num_experts
    routing = make_routing(parts, num_experts)
    yield parts.norm("x", f"{at}pre_mlp_norm", "h")
    yield from _route(parts, at, routing)
    yield kernels.Gather(
        head=Head(routing=routing),
        input=activations.operand("h"),
        out=activations.operand("gathered"),
        size=parts.spec.hidden_size,
    )
    heads = [Head(rows=kernels.ROWS_EXPERT, expert=expert, routing=routing) for expert in range(num_experts)]
    for expert, head in enumerate(heads):
        yield parts.gate("gathered", f"{at}experts.{expert}.gate_up", "expert_act", head=head)
    activated = "expert_act"
    if parts.rounds_operands:
        activated = "expert_act_operand"
        yield parts.norm("expert_act", None, activated, head=Head(rows=kernels.ROWS_ROUTED, routing=routing))
    for expert, head in enumerate(heads):
        yield parts.linear(activated, f"{at}experts.{expert}.down", "expert_y", head=head)
    yield kernels.Combine(
        head=Head(routing=routing),
        y=activations.address("expert_y"),
        out=activations.address("y"),
        size=parts.spec.hidden_size,
        ld_y=activations.ld("expert_y"),
        ld_out=activations.ld("y"),
    )


def make_routing(parts: Parts, num_experts: int) -> kernels.Routing:
    """Describe where Route writes: layers share the memory, one after the other."""
    address = parts.activations.address
    return kernels.Routing(
        num_experts=num_experts,
        top_k=parts.spec.moe_top_k,
        experts=address("routing/experts"),
        shares=address("routing/shares"),
        starts=address("routing/starts"),
        tokens=address("routing/tokens"),
        places=address("routing/places"),
    )


def _route(parts: Parts, at: str, routing: kernels.Routing) -> Iterator[Operation]:
    """Choose by logits in float32 whatever the compute dtype: a choice that falls otherwise changes everything."""
    x = "h"
    if parts.precision.operand != F32:
        x = "h32"
        yield parts.norm("x", f"{at}pre_mlp_norm", x)
    yield parts.linear(x, f"{at}router", "router_logits")
    yield kernels.Route(
        logits=parts.activations.address("router_logits"),
        routing=routing,
        ld=parts.activations.ld("router_logits"),
        normalize=int(parts.spec.moe_normalize_top_k),
    )
