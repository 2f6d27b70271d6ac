"""Judge output tokens against the oracle, position by position on the tokens that were really there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from .cases import Case
from .draw import draw, processed
from .models import MODELS, weights
from .oracle import Oracle, Trace
from .quantized import make_oracle
from .targets import Precision


@dataclass(slots=True)
class Tally:
    """What was measured: goes into the report."""

    decided: int = 0  # positions where the margin leaves one token to any logits within the bound
    near_ties: int = 0  # positions where it does not
    flips: int = 0  # near-ties that fell otherwise than the oracle's
    max_logits_error: float = 0.0  # in parts of the row's largest magnitude
    differences: dict[str, float] = field(default_factory=dict)  # by aspect of invariance, likewise; 0: bitwise equal

    def add(self, other: Tally) -> None:
        """Fold in another tally."""
        self.decided += other.decided
        self.near_ties += other.near_ties
        self.flips += other.flips
        self.max_logits_error = max(self.max_logits_error, other.max_logits_error)
        for aspect, off in other.differences.items():
            self.differ(aspect, off)

    def differ(self, aspect: str, off: float) -> None:
        """Note by how much two computations differed that had only this aspect between them."""
        self.differences[aspect] = max(self.differences.get(aspect, 0.0), off)


@lru_cache
def oracle_of(model: str, quantization: str | None = None) -> Oracle:
    """The oracle of one of the suite's models, with the weights that quantisation leaves it."""
    return make_oracle(MODELS[model], weights(MODELS[model]), quantization)


@lru_cache(maxsize=4000)
def trace_of(model: str, tokens: tuple[int, ...], quantization: str | None = None) -> Trace:
    """The oracle's answer for a sequence, remembered."""
    return oracle_of(model, quantization).trace(list(tokens))


def bound_of(trace: Trace, row: int, precision: Precision) -> float:
    """How far a logit of this row may be off in this precision."""
    return precision.bound * float(abs(trace.logits[row]).max())


def tie_of(trace: Trace, row: int, precision: Precision) -> float:
    """Half the margin above which the token that follows this row must be the oracle's."""
    return precision.tie * float(abs(trace.logits[row]).max())


def judge(
    case: Case, output: list[int], model: str, precision: Precision, explain: Callable[[list[int]], str] | None = None
) -> Tally:
    """Check every output token that was drawn here (`case.done` was given) by the rules on the oracle's logits.

    AssertionError names the first that is wrong; `explain(prefix)` may add what is known about the logits that
    followed a prefix.
    """
    eos, tally = frozenset({MODELS[model].eos}), Tally()
    prompt = list(case.prompt)
    trace = trace_of(model, (*case.prompt, *output), precision.quantization)
    for index in range(len(case.done), len(output)):
        token, position = output[index], len(prompt) + index
        bound = tie_of(trace, position - 1, precision)
        x = processed(trace.logits[position - 1], case.params, prompt, output[:index], eos)
        drawn = draw(x, case.params, position, bound, token)
        routed = trace.routing[position - 1] > precision.routing_bound
        if drawn.decided and routed:
            tally.decided += 1
        else:
            tally.near_ties += 1
            tally.flips += token != drawn.token
        if routed and drawn.deficit > drawn.tolerance:
            hint = explain([*prompt, *output[:index]]) if explain else ""
            raise AssertionError(
                f"{case.name}: output token {index} (position {position}) is {token}, the rules give {drawn.token}: "
                f"margin {drawn.margin:.4g}, the token missed by {drawn.deficit:.4g} where logits within the bound "
                f"of {bound:.3g} explain {drawn.tolerance:.3g}{hint}\n  output {output}\n  prompt {prompt}"
            )
    return tally
