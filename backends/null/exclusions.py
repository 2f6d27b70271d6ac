"""What of the conformance suite asks for a model: everything that holds tokens or logits to the oracle's.

What remains is the contract as far as it does not look at numbers, and the sampler. That tokens do not depend on how
they are scheduled is shown by this backend's own tests, for its tokens can be foretold.
"""

from __future__ import annotations

from ...core.capabilities import Exclusion

_REASON = "null computes no model, so its logits are not the oracle's"

_WHOLE = ("greedy", "invariance", "logits", "numbers", "scoring", "seeded", "speculation")
_SINGLE = {
    "aspects": ("logits_however_computed", "logits_of_a_verification", "company", "recomputation"),
    "contract": (
        "a_step_without_logits_still_writes",
        "dirty_blocks_are_of_no_consequence",
        "block_table_beyond_the_context_is_not_read",
        "blocks_and_rows_may_be_any",
        "forward_is_idempotent",
        "block_copies_come_first",
        "the_batch_stays_the_callers",
        "close_twice_and_load_again",
        "two_runners_at_once",
        "a_block_in_several_tables",
        "the_engine_obeys_the_declaration",
    ),
    "lifecycle": (
        "abort_*",
        "an_exception_fails_only_its_request",
        "deadlines",
        "a_deadline_while_running",
        "what_cannot_fit_is_refused",
        "published_once_and_in_order",
    ),
    "sampler": ("draws_follow_the_distribution",),
}

EXCLUSIONS: tuple[Exclusion, ...] = (
    *(Exclusion(f"*test_{module}.py::*", _REASON) for module in _WHOLE),
    *(Exclusion(f"*test_{module}.py::test_{name}[[]*", _REASON) for module, names in _SINGLE.items() for name in names),
)
