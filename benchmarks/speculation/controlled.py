"""A drafter of set quality: it knows what the model will say, and guesses each token right or wrong by the dice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from isotoken.core.interfaces import Drafter
from isotoken.core.types import Request, StepStats
from isotoken.plugins.drafters import DrafterContext
from isotoken.plugins.hookspecs import API_VERSION, Register, hookimpl

LOOK_UP = "look-up"
"""In place of an agreement: the built-in prompt look-up guesses."""

Agreement = float | str
"""How probably a guess is right, or LOOK_UP."""


@dataclass(slots=True)
class Tally:
    """The steps of a run in which a single request decodes."""

    steps: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    stops: int = 0
    seconds: dict[int, list[float]] = field(default_factory=dict)  # of its steps, by their number of tokens

    def add(self, stats: StepStats) -> None:
        """Count a step that has no more tokens than those drafted and one: prompts are left out."""
        if stats.num_tokens > 1 + stats.num_drafted:
            return
        self.seconds.setdefault(stats.num_tokens, []).append(stats.duration)
        self.steps += 1
        self.tokens += stats.num_new_tokens
        self.drafted += stats.num_drafted
        self.accepted += stats.num_accepted
        self.stops += stats.num_draft_stops

    def take(self, other: Tally) -> None:
        """Add another's counts."""
        for size, times in other.seconds.items():
            self.seconds.setdefault(size, []).extend(times)
        self.steps += other.steps
        self.tokens += other.tokens
        self.drafted += other.drafted
        self.accepted += other.accepted
        self.stops += other.stops


@dataclass(slots=True, eq=False)
class Dial:
    """A plugin with one drafter, `controlled`, and what the steps of its engine brought. Turn it between runs.

    Whether a guess is right depends on the seed and the token's place alone, and not on how many are asked for. A wrong
    guess is another token; those behind it are dealt likewise, though nobody will look at them.
    """

    ISOTOKEN_API = API_VERSION
    agreement: Agreement = 1.0
    known: Sequence[int] = ()  # what every request will say
    dice: Sequence[float] = ()  # below the agreement: the guess of that token is right
    tally: Tally = field(default_factory=Tally)

    def turn(self, agreement: Agreement, known: Sequence[int], seed: int) -> None:
        """Set the dial for the next run, and the tally to nothing."""
        self.agreement, self.known = agreement, known
        draw = random.Random(seed).random
        self.dice = [draw() for _ in known]
        self.tally = Tally()

    @hookimpl
    def register_drafters(self, register: Register) -> None:
        """Claim the name."""
        register("controlled", self._make, description="right as often as it is told to be")

    @hookimpl
    def on_step(self, stats: StepStats) -> None:
        """Count."""
        self.tally.add(stats)

    def _make(self, context: DrafterContext) -> Drafter:
        from isotoken.plugins.drafters.ngram import NgramDrafter  # noqa: PLC0415

        return ControlledDrafter(context, self, NgramDrafter(context))


class ControlledDrafter:
    """Guesses as the dial says."""

    def __init__(self, context: DrafterContext, dial: Dial, look_up: Drafter) -> None:
        self._context, self._dial, self._look_up = context, dial, look_up

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        """Guess for each."""
        if self._dial.agreement == LOOK_UP:
            return self._look_up.propose(requests)
        return [self._guess(request, float(self._dial.agreement)) for request in requests]

    def _guess(self, request: Request, agreement: float) -> list[int]:
        first, vocab_size = request.num_output_tokens, self._context.info.vocab_size
        places = slice(first, first + self._context.most_for(request))
        return [
            token if dice < agreement else (token + 1) % vocab_size
            for token, dice in zip(self._dial.known[places], self._dial.dice[places], strict=True)
        ]

    def release(self, request_id: str) -> None:
        """Forget a request that ended."""
        self._look_up.release(request_id)

    def close(self) -> None:
        """Forget all."""
        self._look_up.close()
