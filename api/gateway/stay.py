"""Stay: what the gate holds for a request while it is in hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from .limiter import Demand
from .principal import Principal
from .turnstile import Turn, Turnstile


@dataclass(eq=False, slots=True)
class Stay:
    """One request's."""

    principal: Principal
    address: str = ""  # what is limited as one
    places: list[Demand] = field(default_factory=list)  # of concurrency, taken
    reserved: list[Demand] = field(default_factory=list)  # tokens
    num_settled: int = 0  # tokens, told to the limiter
    coming_to: Turnstile | None = None  # where it is expected
    turnstile: Turnstile | None = None  # that let it in, with its turn
    turn: Turn | None = None
    inside: bool = False  # at the engine
