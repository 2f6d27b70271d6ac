"""The bugs that the suite must find: a replaced piece of text in the core or the reference backend, or a named one."""

from __future__ import annotations

from dataclasses import dataclass

SCHEDULER, CACHE, BUILDER = "isotoken.core.scheduler", "isotoken.core.kv_cache", "isotoken.core.batch_builder"
FOLD, SAMPLING, EDITS, ENGINE = (
    "isotoken.core.fold",
    "isotoken.core.sampling",
    "isotoken.core.logits_edits",
    "isotoken.core.engine",
)
RUNNER, LAYERS = "isotoken.backends.reference.runner", "isotoken.backends.reference.layers"
CONTIGUOUS = "isotoken.plugins.kv_caches.contiguous"


@dataclass(frozen=True)
class Mutation:
    """One bug, and the tests of the suite (a -k expression) among which at least one must fail."""

    name: str
    tests: str
    module: str = ""
    find: str = ""
    replace: str = ""


# The first ten are those of the design's trial.
MUTATIONS = [
    Mutation(
        "rollback missing (rejected drafts counted as computed)",
        "test_garbage",
        SCHEDULER,
        "computed = min(start + num_tokens, len(request.token_ids) - 1)",
        "computed = start + num_tokens",
    ),
    Mutation(
        "prefix cache publishes uncomputed blocks",
        "test_chunk_sizes or test_the_same_prompt_at_once",
        CACHE,
        "for index in range(len(hashes), request.num_computed_tokens // size):",
        "for index in range(len(hashes), len(request.token_ids) // size):",
    ),
    Mutation(
        "eviction keeps a stale hash",
        "test_evicted or test_preemption",
        CACHE,
        "            del self._published[digest]\n            self._hashes[block] = None\n",
        "            pass\n",
    ),
    Mutation(
        "a block's hash ignores what came before",
        "test_salts or test_cold_warm or test_everything",
        CACHE,
        "digest = blake2b(parent, digest_size=_DIGEST_BYTES)",
        "digest = blake2b(digest_size=_DIGEST_BYTES)",
    ),
    Mutation(
        "whole prompt matched (no token left to compute)",
        "test_wholly_cached_prompt",
        CACHE,
        "num_blocks = (len(request.token_ids) - 1) // self._block_size",
        "num_blocks = len(request.token_ids) // self._block_size",
    ),
    Mutation(
        "noise keyed by the row of the step, not by position",
        "test_seeded and test_goldens",
        BUILDER,
        "positions=query_positions + np.int64(1)",
        "positions=np.arange(len(rows), dtype=np.int64)",
    ),
    Mutation(
        "noise keyed by the position before",
        "test_seeded and test_goldens",
        BUILDER,
        "positions=query_positions + np.int64(1)",
        "positions=query_positions + np.int64(0)",
    ),
    Mutation(
        "context length of a decode off by one",
        "test_greedy and test_goldens",
        RUNNER,
        "stop = batch.positions[t] + 1",
        "stop = max(batch.positions[t] + int(batch.query_start_loc[n + 1] - batch.query_start_loc[n] > 1), 1)",
    ),
    Mutation(
        "slot in the wrong block",
        "test_greedy and test_goldens",
        BUILDER,
        "[layout.token_rows, blocks]",
        "[layout.token_rows, blocks * (layout.lens[layout.owners] == 1)]",
    ),
    Mutation(
        "a preempted request keeps its computed count",
        "test_preemption",
        CACHE,
        "        request.block_ids, request.block_hashes = [], []\n        request.num_computed_tokens = 0\n",
        "        request.block_ids, request.block_hashes = [], []\n",
    ),
    Mutation(
        "one draft too many accepted",
        "test_garbage or test_mostly_right",
        FOLD,
        "if index < last and token != drafts[index]:",
        "if index and index < last and draws[index - 1] != drafts[index - 1]:",
    ),
    # the rest of the core
    Mutation(
        "salt ignored",
        "test_salts",
        CACHE,
        'return blake2b(salt, digest_size=_DIGEST_BYTES, person=b"salt").digest()',
        'return blake2b(digest_size=_DIGEST_BYTES, person=b"salt").digest()',
    ),
    Mutation(
        "blocks of requests that end are kept",
        "test_greedy",
        SCHEDULER,
        "        self._kv.free(request)\n        request.draft_ids = []\n",
        "        request.draft_ids = []\n",
    ),
    Mutation(
        "a block counts one reference too few",
        "test_the_same_prompt_at_once or test_cold_warm",
        CACHE,
        "            self._num_refs[block] += 1\n",
        "",
    ),
    Mutation(
        "a stop token inside an accepted run is passed over",
        "test_stop_inside",
        FOLD,
        "if token in request.end_token_ids:",
        "if token in request.end_token_ids and index == last:",
    ),
    Mutation(
        "max_model_len passed",
        "test_greedy and test_max_model_len",
        SCHEDULER,
        "min(request.num_prompt_tokens + params.max_tokens, self._max_len)",
        "min(request.num_prompt_tokens + params.max_tokens, self._max_len + 1)",
    ),
    Mutation(
        "penalties do not count drafts",
        "test_parameters_see_accepted_drafts",
        EDITS,
        "            if index:\n                self._count(drafts[num_drafts + index - 1])\n",
        "",
    ),
    Mutation(
        "min_tokens off by one",
        "test_min_tokens_to_the_token",
        EDITS,
        "if request.num_output_tokens + len(drafts) < request.params.min_tokens:",
        "if request.num_output_tokens + len(drafts) < request.params.min_tokens - 1:",
    ),
    Mutation(
        "nine rounds of Philox",
        "test_each_parameter",
        SAMPLING,
        "    for _ in range(10):\n",
        "    for _ in range(9):\n",
    ),
    Mutation(
        "noise of the wrong sign",
        "test_draws_follow",
        SAMPLING,
        "noise: Float32 = -np.log(-np.log(uniform))",
        "noise: Float32 = np.log(-np.log(uniform))",
    ),
    Mutation(
        "top-p keeps one token too few",
        "test_each_parameter or test_draws_follow",
        SAMPLING,
        "keep &= (np.cumsum(weights) - weights) / total < top_p",
        "keep &= np.cumsum(weights) / total < top_p",
    ),
    Mutation(
        "logprobs of the edited logits",
        "test_greedy and test_logprobs or test_prompt_logprobs",
        SAMPLING,
        "return with_logprobs(raw, tokens, rows.num_logprobs, _score)",
        "return with_logprobs(raw / 1.01, tokens, rows.num_logprobs, _score)",
    ),
    Mutation(
        "prompt scores one position late",
        "test_scoring",
        BUILDER,
        "first = share.start + share.num_tokens - share.num_logits + 1",
        "first = share.start + share.num_tokens - share.num_logits",
    ),
    Mutation(
        "scored prompts take prefix hits",
        "test_a_warm_cache_is_passed_by",
        SCHEDULER,
        "looks_up = not is_scoring(request)",
        "looks_up = True",
    ),
    Mutation(
        "the wrong request is failed",
        "test_an_exception",
        ENGINE,
        "failures.append((share.request, failure))",
        "failures.append((plan[0].request, failure))",
    ),
    Mutation(
        "deadlines forgotten",
        "test_deadlines",
        SCHEDULER,
        "while self._deadlines and self._deadlines[0][0] <= now:",
        "while self._deadlines and self._deadlines[0][0] <= 0:",
    ),
    Mutation(
        "contiguous rows are not copied",
        "test_contiguous_cache",
        CONTIGUOUS,
        "self._copies[others[0]] = (source, num_tokens)",
        "pass",
    ),
    # the decoder
    Mutation(
        "sliding window one too wide",
        "test_logits and gemma2",
        RUNNER,
        "max(0, stop - layer.sliding_window)",
        "max(0, stop - layer.sliding_window - 1)",
    ),
    Mutation(
        "key heads shared wrongly",
        "test_last_position",
        LAYERS,
        "groups = query.reshape(keys.shape[1], -1, query.shape[-1])",
        "groups = query.reshape(-1, keys.shape[1], query.shape[-1]).swapaxes(0, 1)",
    ),
    Mutation(
        "attention soft cap forgotten",
        "test_last_position",
        RUNNER,
        "spec.attention_scale, spec.attention_softcap)",
        "spec.attention_scale, None)",
    ),
]

BUGS = {
    "context off by one": "test_one_by_one",
    "wrong rope position": "test_one_by_one",
    "block copies ignored": "test_block_copies or test_contiguous_cache",
    "block copies late": "test_block_copies or test_contiguous_cache",
    "stale block": "test_dirty_blocks",
    "prefill without logits not written": "test_a_step_without_logits",
    "blocks taken to lie in order": "test_blocks_and_rows",
    "rows swapped": "test_logits_however_computed or test_in_batches",
    "depends on the batch, claims not to": "test_company",
    "depends on the chunk, claims not to": "test_chunking",
    "depends on the row, claims not to": "test_placement",
    "depends on decoding, claims not to": "test_recomputation",
    "depends on the threads, claims not to": "test_any_number_of_threads",
    "names an aspect that fails": "test_company",
    "off by nearly the bound everywhere": "test_certificate",
    "declares int8, has it not": "test_every_declared_quantization",
    "depends on the calls before": "test_forward_is_idempotent",
    "coarser than claimed": "test_last_position",
    "wrong far into the context": "test_up_to_the_last_position",
    "one row loses its shape": "test_contract",
    "changes the batch": "test_the_batch_stays",
    "top-p ignored": "test_each_parameter",
    "top-k off by one": "test_each_parameter",
    "min-p ignored": "test_each_parameter",
    "seed cut to 32 bits": "test_each_parameter",
    "position cut to 32 bits": "test_each_parameter",
    "position ignored": "test_draws_follow",
    "mask ignored": "test_each_parameter",
    "repetition penalty ignored": "test_each_parameter",
    "first row's temperature for all": "test_rows_of_every_kind",
    "targets ignored": "test_scoring_rows",
    "too few logits granted": "test_info_is_honest",
    "no end tokens": "test_info_is_honest or test_end_of_sequence",
    "another dtype than asked": "test_info_is_honest",
    "a longer context than asked": "test_info_is_honest",
    "absent without a reason": "test_declarations",
    "declares float16, has it not": "test_every_declared_dtype",
    "declares speculation absent, does it": "test_absent_speculation",
    "second close fails": "test_close_twice",
    "goes by another name": "test_declarations",
    "unknown options accepted": "test_the_undeclared",
    "unknown dtype accepted": "test_the_undeclared or test_undeclared",
}
"""Bugs of the fixture backend by name (see fixture/isotoken_fixture.py), and the tests that find them."""
