"""Escalation: a cheap model's answer is taken where the model was sure of it, else a strong one is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..server.generation import Choice


def confidence(choices: Sequence[Choice]) -> float:
    """Return the geometric mean of the probabilities of all drawn tokens (1 over the perplexity of the answer).

    Raises ValueError where there are no log-probabilities to go by.
    """
    logprobs = [each.logprob for choice in choices for each in choice.logprobs]
    if not logprobs:
        raise ValueError("no token has a log-probability")
    return math.exp(sum(logprobs) / len(logprobs))
