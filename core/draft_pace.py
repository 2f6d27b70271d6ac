"""How many guesses pay for a request: learnt from those that were right, weighed against what guesses cost.

The gain is that of Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding" (ICML
2023, section 3): with k guesses, each right with probability a if those before it were, a step brings
1 + a + ... + a**k = (1 - a**(k + 1)) / (1 - a) tokens. They let a verification cost what a decode does, which is so as
long as memory is the limit; here every guess has a price, and the number of guesses is that of the most tokens for it.
"""

from __future__ import annotations

from dataclasses import dataclass

MEMORY = 0.9
"""What older verifications count for when a new one comes: some ten of them matter."""

PRIOR_RIGHT, PRIOR_JUDGED = 1.5, 2.0
"""A request begins as if so many of so many guesses had been right: hopeful, and soon convinced of the contrary."""

FIRST_PAUSE, LAST_PAUSE = 16, 256
"""Steps without a guess before one is tried again; each wrong one doubles them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftPolicy:
    """What the number of guesses is decided by. Costs are in parts of a step."""

    num_draft_tokens: int  # the most for one request
    verify_cost: float  # of one more token in a step, in parts of a step of one token
    propose_cost: float = 0.0  # of one more guess for each request of a step, in parts of that step

    def price(self, num_requests: int) -> float:
        """What one guess more for each of `num_requests` adds to a step of one token each, in parts of that step.

        A step is taken to cost 1 + verify_cost * (its tokens - 1): the weights once, and the arithmetic of each token.
        So a guess is cheap for one request alone, and as dear as a token of its own where many share a step.
        """
        return num_requests * self.verify_cost / (1 + (num_requests - 1) * self.verify_cost) + self.propose_cost


class DraftPace:
    """How many guesses to ask for, for one request.

    Follows from the guesses of this request that were verified and from the prices asked, never from time: a run that
    is repeated plans the same steps.
    """

    def __init__(self) -> None:
        self._num_right, self._num_judged = PRIOR_RIGHT, PRIOR_JUDGED  # faded
        self._pause = FIRST_PAUSE
        self._num_waited = 0
        self.is_off = False

    @property
    def acceptance(self) -> float:
        """The share of guesses that were right lately, of those behind nothing but right ones."""
        return self._num_right / self._num_judged

    def num_drafts(self, policy: DraftPolicy, num_requests: int, *, may_try: bool = True) -> int:
        """How many guesses to ask for now, `num_requests` sharing the step that verifies them.

        Where none pays one is tried now and then, in a step in which it may be.
        """
        price = policy.price(num_requests)
        num_best = best_num_drafts(self.acceptance, price, policy.num_draft_tokens)
        self.is_off = not num_best
        if num_best:
            self._num_waited, self._pause = 0, FIRST_PAUSE
            return num_best
        if price >= 1:  # not even guesses that are always right pay
            return 0
        self._num_waited += 1
        return int(may_try and self._num_waited > self._pause)  # until one comes to be verified, and is wrong

    def note(self, num_drafts: int, num_accepted: int) -> None:
        """Learn from a verification of at least one guess."""
        if self.is_off and not num_accepted:
            self._num_waited, self._pause = 0, min(2 * self._pause, LAST_PAUSE)
        self._num_right = MEMORY * self._num_right + num_accepted
        self._num_judged = MEMORY * self._num_judged + min(num_accepted + 1, num_drafts)  # none behind a wrong one


def best_num_drafts(acceptance: float, price: float, most: int) -> int:
    """The number of guesses, up to `most`, for which (1 + a + ... + a**k) / (1 + k * price) is highest; the least such.

    That ratio rises as long as the next guess's gain per price is above it, and falls from there on.
    """
    num_drafts, tokens, gain = 0, 1.0, acceptance
    while num_drafts < most and gain * (1 + num_drafts * price) > tokens * price:
        num_drafts += 1
        tokens += gain
        gain *= acceptance
    return num_drafts
