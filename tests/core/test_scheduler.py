"""ContinuousScheduler: order, limits, ends, preemption, deadlines, scoring and replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Sampled
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.scheduler import ContinuousScheduler, SchedulerConfig
from isotoken.core.types import FinishReason, Request, RequestOutput

from .drafters import GarbageDrafter, KnowingDrafter
from .toy import VOCAB_SIZE, ToyRunner
from .world import EOS, MAX_MODEL_LEN, Setup, World, make_request

PROMPT = [11, 42, 7, 63, 20, 5, 90, 33]


def make_scheduler(
    num_blocks: int = 100, block_size: int = 4, **limits: Any
) -> tuple[ContinuousScheduler, PagedKVCache]:
    runner = ToyRunner(num_blocks=num_blocks, block_size=block_size, max_model_len=MAX_MODEL_LEN, **limits)
    kv_cache = PagedKVCache(runner.info, KVCacheConfig(prefix_caching=False))
    return ContinuousScheduler(kv_cache, SchedulerConfig.from_info(runner.info)), kv_cache


def draw(scheduler: ContinuousScheduler, token: int = 1) -> list[RequestOutput]:
    """One step in which every row draws `token`."""
    plan = scheduler.schedule()
    num_rows = sum(share.num_logits for share in plan)
    return scheduler.update(plan, Sampled(np.full(num_rows, token, np.int32)))


def finish(prompt: list[int] = PROMPT, setup: Setup = Setup(), **options: Any) -> Any:  # noqa: B008  (frozen)
    """The result of one request run alone."""
    world = World.make(setup)
    world.add(make_request("r", prompt, **options))
    return world.run()["r"]


# --- ends ---------------------------------------------------------------------------------------


def test_max_tokens_ends_it_with_length() -> None:
    result = finish(max_tokens=3, ignore_eos=True)
    assert (len(result.token_ids), result.finish_reason, result.stop_token_id) == (3, FinishReason.LENGTH, None)


def test_an_end_of_sequence_token_ends_it_and_is_the_last_token() -> None:
    result = finish(max_tokens=50, logit_bias={EOS: 100.0})
    assert (result.token_ids, result.finish_reason, result.stop_token_id) == ([EOS], FinishReason.STOP, EOS)


def test_ignore_eos_goes_on() -> None:
    result = finish(max_tokens=4, logit_bias={EOS: 100.0}, ignore_eos=True)
    assert (result.token_ids, result.finish_reason) == ([EOS] * 4, FinishReason.LENGTH)


def test_a_stop_token_ends_it_even_when_eos_is_ignored() -> None:
    result = finish(max_tokens=4, logit_bias={9: 100.0}, ignore_eos=True, stop_token_ids=frozenset({9}))
    assert (result.token_ids, result.finish_reason, result.stop_token_id) == ([9], FinishReason.STOP, 9)


def test_min_tokens_bans_ends_until_then() -> None:
    bias = {EOS: 100.0, 9: 90.0, 8: 80.0}
    result = finish(max_tokens=50, min_tokens=3, logit_bias=bias, stop_token_ids=frozenset({9}))
    assert (result.token_ids, result.stop_token_id) == ([8, 8, 8, EOS], EOS)


def test_the_context_ends_it() -> None:
    result = finish(max_tokens=10_000, ignore_eos=True)
    assert len(PROMPT) + len(result.token_ids) == MAX_MODEL_LEN and result.finish_reason == FinishReason.LENGTH


def test_a_pool_smaller_than_the_context_is_the_context() -> None:
    result = finish(setup=Setup(num_blocks=3, block_size=8), max_tokens=10_000, ignore_eos=True)
    assert len(PROMPT) + len(result.token_ids) == 24


def test_a_prompt_that_fills_the_context_draws_nothing() -> None:
    result = finish([1] * MAX_MODEL_LEN, max_tokens=5)
    assert (result.token_ids, result.finish_reason) == ([], FinishReason.LENGTH)


@pytest.mark.parametrize("drafter", [None, lambda runner: GarbageDrafter(7)])
def test_no_draft_reaches_past_the_end(drafter: Any) -> None:
    """World asserts it for every plan; an accepted run ends where a single token would."""
    alone = finish(max_tokens=5, ignore_eos=True)
    known = KnowingDrafter(50, {"r": alone.token_ids + [1] * 50})
    for choice in (drafter, lambda runner: known):
        assert finish(setup=Setup(drafter=choice), max_tokens=5, ignore_eos=True) == alone


def test_a_stop_inside_an_accepted_run_ends_it_there() -> None:
    alone = finish(max_tokens=12, ignore_eos=True)
    stop = alone.token_ids[5]
    cut = alone.token_ids.index(stop) + 1
    drafter = KnowingDrafter(8, {"r": alone.token_ids})
    world = World.make(Setup(drafter=lambda runner: drafter))
    world.add(make_request("r", PROMPT, max_tokens=12, ignore_eos=True, stop_token_ids=frozenset({stop})))
    result = world.run()["r"]
    assert (result.token_ids, result.stop_token_id) == (alone.token_ids[:cut], stop)
    assert world.runner.num_calls == 2, "the prompt, then everything in one verification"


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (make_request("r", [1] * (MAX_MODEL_LEN + 1)), "129 tokens do not fit the context of 128"),
        (make_request("r", []), "num_prompt_tokens=0"),
        (make_request("r", [1, VOCAB_SIZE]), "token_ids holds token id 97"),
        (make_request("r", [-1]), "token_ids holds token id -1"),
        (make_request("r", [1], logit_bias={97: 1.0}), "logit_bias holds token id 97"),
        (make_request("r", [1], allowed_token_ids=(1, 200)), "allowed_token_ids holds token id 200"),
        (make_request("r", [1], bad_words_ids=((5, 99),)), "bad_words_ids holds token id 99"),
        (make_request("r", [1], bad_words_ids=((5,), ())), "bad_words_ids holds an empty word"),
    ],
    ids=["long", "empty", "unknown", "negative", "bias", "allowed", "bad word", "empty word"],
)
def test_what_cannot_run_is_refused_at_once(request_: Request, message: str) -> None:
    world = World.make(Setup())
    with pytest.raises(ValueError, match=message):
        world.engine.add(request_)
    assert not world.engine.has_work


def test_an_id_is_taken_until_its_request_ends() -> None:
    world = World.make(Setup())
    world.add(make_request("r", PROMPT, max_tokens=2))
    with pytest.raises(ValueError, match="already here"):
        world.engine.add(make_request("r", PROMPT))
    world.run()
    world.engine.add(make_request("r", PROMPT))


def test_fewer_logits_rows_than_requests_are_refused() -> None:
    info = ToyRunner(num_blocks=4, block_size=4, max_num_seqs=8, max_num_logits=7).info
    with pytest.raises(ValueError, match="max_num_logits=7 is below max_num_seqs=8"):
        ContinuousScheduler(PagedKVCache(info, KVCacheConfig()), SchedulerConfig.from_info(info))


# --- order --------------------------------------------------------------------------------------


def test_lower_priorities_run_first_and_equals_in_order_of_arrival() -> None:
    scheduler, _ = make_scheduler(max_num_seqs=1)
    for name, priority in [("a", 1), ("b", 0), ("c", 0), ("d", -1)]:
        scheduler.add(make_request(name, [1, 2], max_tokens=1, priority=priority))
    order = []
    while scheduler.has_work:
        order += [output.request_id for output in draw(scheduler)]
    assert order == ["d", "b", "c", "a"]


def test_a_long_prompt_is_cut_and_decodes_go_on_beside_it() -> None:
    scheduler, _ = make_scheduler(max_num_batched_tokens=10)
    scheduler.add(make_request("short", [1, 2], max_tokens=20))
    draw(scheduler)
    scheduler.add(make_request("long", [3] * 25, max_tokens=1))
    lengths = []
    for _ in range(3):
        plan = scheduler.schedule()
        lengths.append([(share.request.id, share.num_tokens, share.num_logits) for share in plan])
        scheduler.update(plan, Sampled(np.ones(sum(share.num_logits for share in plan), np.int32)))
    assert lengths == [
        [("short", 1, 1), ("long", 9, 0)],
        [("short", 1, 1), ("long", 9, 0)],
        [("short", 1, 1), ("long", 7, 1)],
    ]


def test_the_newest_is_preempted_and_comes_back_in_its_old_place() -> None:
    scheduler, kv_cache = make_scheduler(num_blocks=6, block_size=2)
    old, new = make_request("old", [1, 2, 3], max_tokens=6), make_request("new", [4, 5, 6], max_tokens=6)
    scheduler.add(old)
    scheduler.add(new)
    while not new.num_preemptions:
        draw(scheduler)
    newer = make_request("newer", [7], max_tokens=1)
    scheduler.add(newer)
    assert (new.row_id, new.block_ids, new.num_computed_tokens, old.num_preemptions) == (-1, [], 0, 0)
    while new.row_id < 0:
        assert newer.num_output_tokens == 0, "nobody overtakes it"
        kv_cache.check([request for request in (old, new, newer) if request.finish_reason is None])
        draw(scheduler)
    while scheduler.has_work:
        draw(scheduler)
    assert new.token_ids == [4, 5, 6] + [1] * 6


def test_a_request_of_low_priority_is_preempted_before_an_older_one_of_high() -> None:
    scheduler, _ = make_scheduler(num_blocks=6, block_size=2)
    low, high = make_request("low", [1, 2, 3], max_tokens=6, priority=5), make_request("high", [4, 5, 6], max_tokens=6)
    scheduler.add(low)
    draw(scheduler)
    scheduler.add(high)
    while scheduler.num_preemptions == 0:
        draw(scheduler)
    assert (low.num_preemptions, high.num_preemptions) == (1, 0)


def test_drafts_are_dropped_before_anyone_is_preempted() -> None:
    scheduler, kv_cache = make_scheduler(num_blocks=4, block_size=2)
    first, second = make_request("first", [1, 2], max_tokens=2), make_request("second", [3, 4, 5], max_tokens=3)
    scheduler.add(first)
    scheduler.add(second)
    draw(scheduler)
    assert kv_cache.num_free_blocks == 1
    second.draft_ids = [1, 1, 1]
    plan = scheduler.schedule()
    assert [(share.request.id, share.num_drafts) for share in plan] == [("first", 0), ("second", 0)]
    assert second.draft_ids == [] and scheduler.num_preemptions == 0


def test_rows_stay_low_and_are_reused() -> None:
    scheduler, _ = make_scheduler(max_num_seqs=4)
    requests = [make_request(str(index), [1], max_tokens=index + 1) for index in range(4)]
    for request in requests:
        scheduler.add(request)
    draw(scheduler)
    assert [request.row_id for request in requests] == [-1, 1, 2, 3]
    late = make_request("late", [1], max_tokens=9)
    scheduler.add(late)
    draw(scheduler)
    assert late.row_id == 0


# --- leaving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 3], ids=["waiting", "prefill", "decode"])
def test_abort_frees_its_blocks_at_once_in_every_state(steps: int) -> None:
    scheduler, kv_cache = make_scheduler(max_num_batched_tokens=5)
    request = make_request("r", PROMPT, max_tokens=20)
    scheduler.add(request)
    for _ in range(steps):
        draw(scheduler)
    assert scheduler.abort("r")
    assert request.finish_reason == FinishReason.ABORT and request.block_ids == []
    assert kv_cache.num_free_blocks == kv_cache.num_blocks and not scheduler.has_work
    assert not scheduler.abort("r") and not scheduler.abort("never here")


def test_abort_of_a_preempted_request() -> None:
    scheduler, _ = make_scheduler(num_blocks=6, block_size=2)
    old, new = make_request("old", [1, 2, 3], max_tokens=6), make_request("new", [4, 5, 6], max_tokens=6)
    scheduler.add(old)
    scheduler.add(new)
    while not new.num_preemptions:
        draw(scheduler)
    assert scheduler.abort("new") and scheduler.num_waiting == 0
    while scheduler.has_work:
        draw(scheduler)
    assert len(old.token_ids) == 9


@pytest.mark.parametrize("steps", [0, 1, 3], ids=["waiting", "prefill", "decode"])
def test_a_deadline_ends_it_with_timeout_in_every_state(steps: int) -> None:
    world = World.make(Setup(max_num_batched_tokens=5, block_size=4, prefix_caching=False))
    request = world.add(make_request("r", PROMPT, max_tokens=20, deadline=float(steps)))
    other = world.add(make_request("other", PROMPT, max_tokens=4, ignore_eos=True))
    for _ in range(steps):
        world.step()
    assert request.finish_reason is None
    world.step()
    assert world.results["r"].finish_reason == FinishReason.TIMEOUT and request.block_ids == []
    assert len(world.run()["other"].token_ids) == 4 and other.finish_reason == FinishReason.LENGTH


def test_a_deadline_is_reported_when_nothing_else_is_left() -> None:
    world = World.make(Setup())
    world.add(make_request("r", PROMPT, deadline=-1.0))
    world.step()
    assert world.results["r"].finish_reason == FinishReason.TIMEOUT and world.runner.num_calls == 0
    assert not world.engine.has_work


def test_the_deadline_of_a_finished_request_does_not_hit_another_of_its_name() -> None:
    world = World.make(Setup())
    world.add(make_request("r", PROMPT, max_tokens=1, deadline=5.0))
    world.run()
    world.results.clear()
    world.add(make_request("r", PROMPT, max_tokens=12, ignore_eos=True))
    assert len(world.run()["r"].token_ids) == 12


# --- scoring ------------------------------------------------------------------------------------


def log_softmax_of(prompt: list[int]) -> Any:
    """[len(prompt) - 1] log-probabilities of tokens 1.. of the prompt, from single forwards of the runner."""
    scored = []
    for end in range(1, len(prompt)):
        result = finish(prompt[:end], max_tokens=1, num_logprobs=-1)
        (row,) = result.logprobs
        scored.append(dict(row.top)[prompt[end]])
    return scored


@pytest.mark.parametrize("max_num_batched_tokens", [3, 64])
@pytest.mark.parametrize("max_num_logits", [8, 200])
def test_prompt_logprobs_are_those_of_each_position(max_num_batched_tokens: int, max_num_logits: int) -> None:
    prompt = PROMPT * 2
    setup = Setup(max_num_batched_tokens=max_num_batched_tokens, max_num_logits=max_num_logits, block_size=4)
    result = finish(prompt, setup, max_tokens=0, num_prompt_logprobs=1)
    assert [one.token_id for one in result.prompt_logprobs] == prompt[1:]
    assert [one.logprob for one in result.prompt_logprobs] == pytest.approx(log_softmax_of(prompt), abs=1e-5)
    assert (result.token_ids, result.finish_reason) == ([], FinishReason.LENGTH)


def test_scoring_bypasses_prefix_hits_that_others_use() -> None:
    world = World.make(Setup(block_size=4))
    for name, options in [("first", {}), ("scored", {"num_prompt_logprobs": 0}), ("hit", {})]:
        world.add(make_request(name, PROMPT, max_tokens=1, **options))
        world.run()
    assert [world.results[name].num_cached_tokens for name in ("first", "scored", "hit")] == [0, 0, 4]
    assert len(world.results["scored"].prompt_logprobs) == len(PROMPT) - 1


def test_scoring_survives_preemption_without_double_reports() -> None:
    """The scored request is preempted in the middle of its prompt."""
    scheduler, kv_cache = make_scheduler(num_blocks=9, block_size=2, max_num_batched_tokens=4)
    old, scored = make_request("old", [1] * 4, max_tokens=12), make_request("scored", [2] * 10, num_prompt_logprobs=0)
    scheduler.add(old)
    draw(scheduler)
    scheduler.add(scored)
    num_reported = 0
    while scheduler.has_work:
        plan = scheduler.schedule()
        rows = sum(share.num_logits for share in plan)
        logprobs = np.zeros(rows, np.float32)
        sampled = Sampled(np.ones(rows, np.int32), logprobs, np.ones(rows, np.int32), None, None)
        for output in scheduler.update(plan, sampled):
            num_reported += len(output.prompt_logprobs or [])
        kv_cache.check([request for request in (old, scored) if request.finish_reason is None])
    assert scored.num_preemptions > 0 and num_reported == 9


def test_a_replayed_request_goes_on_where_it_was() -> None:
    alone = finish(max_tokens=10, ignore_eos=True, temperature=0.8, seed=5, num_prompt_logprobs=0)
    for num_known in (1, 5, 9):
        world = World.make(Setup(block_size=4, max_num_batched_tokens=6))
        request = make_request(
            "r", PROMPT, output=alone.token_ids[:num_known], max_tokens=10, ignore_eos=True, temperature=0.8, seed=5
        )
        world.add(request)
        assert world.run()["r"].token_ids == alone.token_ids[num_known:]
        assert request.token_ids == PROMPT + alone.token_ids


def test_a_request_replayed_complete_only_ends() -> None:
    world = World.make(Setup())
    world.add(make_request("r", PROMPT, output=[1, 2, 3], max_tokens=3))
    result = world.run()["r"]
    assert (result.token_ids, result.finish_reason) == ([], FinishReason.LENGTH)
