"""Runs requests through a whole engine over the toy decoder and checks the invariants of every step on the way."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from isotoken.core.draft_pace import DraftPolicy
from isotoken.core.engine import Engine
from isotoken.core.interfaces import Drafter
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.scheduler import ContinuousScheduler, SchedulerConfig
from isotoken.core.types import DecodeParams, FinishReason, Request, RequestOutput, Scheduled, TokenLogprobs

from .automaton import EOS, WalkCompiler, walk
from .toy import VOCAB_SIZE, ToyRunner

MAX_MODEL_LEN = 128


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One way to run; none of it may change a token."""

    block_size: int = 16
    num_blocks: int = 400
    max_num_seqs: int = 8
    max_num_batched_tokens: int = 64
    max_num_logits: int = 0
    prefix_caching: bool = True
    asynchronous: bool = False
    kv_cache: Callable[..., Any] = PagedKVCache
    scheduler: Callable[..., Any] = ContinuousScheduler
    drafter: Callable[[ToyRunner], Drafter] | None = None
    draft_policy: DraftPolicy | None = None


ALONE = Setup(max_num_seqs=1, max_num_batched_tokens=1000, prefix_caching=False)
"""One request at a time, whole prompts, nothing shared: what every other setup is compared with."""


@dataclass
class Result:
    """Everything that was published of one request."""

    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    num_cached_tokens: int = 0
    error: str | None = None

    def add(self, output: RequestOutput) -> None:
        assert self.finish_reason is None, "an output after the end"
        self.token_ids += output.token_ids
        self.finish_reason, self.stop_token_id = output.finish_reason, output.stop_token_id
        self.logprobs += output.logprobs or []
        self.prompt_logprobs += output.prompt_logprobs or []
        self.num_cached_tokens, self.error = output.num_cached_tokens, output.error


class Checked:
    """A scheduler whose every plan and update is held against the contract."""

    def __init__(self, scheduler: Any, config: SchedulerConfig) -> None:
        self._scheduler, self._config = scheduler, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def schedule(self) -> list[Scheduled]:
        plan: list[Scheduled] = self._scheduler.schedule()
        config = self._config
        assert sum(share.num_tokens for share in plan) <= config.max_num_batched_tokens
        assert sum(share.num_logits for share in plan) <= config.max_num_logits
        rows = [share.request.row_id for share in plan]
        assert len(set(rows)) == len(rows) <= config.max_num_seqs
        assert all(0 <= row < config.max_num_seqs for row in rows)
        running = [request.id for request in self._scheduler._running]
        assert sorted(share.request.id for share in plan) == sorted(running), "everybody who runs goes on in every step"
        for share in plan:
            request, end = share.request, share.start + share.num_tokens
            assert share.start == request.num_computed_tokens and share.num_tokens >= 1
            assert end - share.num_drafts <= len(request.token_ids)
            assert not share.num_drafts or end < request.max_num_tokens <= config.max_model_len
        return plan

    def update(self, plan: Sequence[Scheduled], sampled: Any) -> list[RequestOutput]:
        outputs: list[RequestOutput] = self._scheduler.update(plan, sampled)
        sampled_ids = {output.request_id for output in outputs if output.token_ids}
        for share in plan:
            request = share.request
            known = len(request.token_ids)
            assert request.num_computed_tokens <= known - 1
            if request.id in sampled_ids and request.finish_reason is None:
                assert request.num_computed_tokens == known - 1, "a sampled request has all but its newest computed"
                assert not request.draft_ids
        return outputs


@dataclass
class World:
    """An engine and all that was published by it; `clock` counts steps."""

    setup: Setup
    runner: ToyRunner
    engine: Engine
    kv_cache: Any
    scheduler: Any
    results: dict[str, Result]
    requests: dict[str, Request]
    clock: list[float]

    @classmethod
    def make(cls, setup: Setup, runner: ToyRunner | None = None, **engine_options: Any) -> World:
        runner = runner or ToyRunner(
            num_blocks=setup.num_blocks,
            block_size=setup.block_size,
            max_num_seqs=setup.max_num_seqs,
            max_num_batched_tokens=setup.max_num_batched_tokens,
            max_num_logits=setup.max_num_logits,
            max_model_len=MAX_MODEL_LEN,
            eos_token_ids=frozenset({EOS}),
            asynchronous=setup.asynchronous,
        )
        kv_cache = setup.kv_cache(runner.info, KVCacheConfig(prefix_caching=setup.prefix_caching))
        config = SchedulerConfig.from_info(runner.info)
        clock = [0.0]
        scheduler = Checked(setup.scheduler(kv_cache, config, clock=lambda: clock[0]), config)
        results: dict[str, Result] = {}

        def publish(outputs: list[RequestOutput]) -> None:
            assert outputs
            for output in outputs:
                results.setdefault(output.request_id, Result()).add(output)

        drafter = None if setup.drafter is None else setup.drafter(runner)
        parts = {"drafter": drafter, "draft_policy": setup.draft_policy, "publish": publish, "grammars": WalkCompiler()}
        engine = Engine(runner, scheduler, kv_cache, **{**parts, **engine_options})
        return cls(setup, runner, engine, kv_cache, scheduler, results, {}, clock)

    def add(self, request: Request) -> Request:
        self.engine.add(request)
        self.requests[request.id] = request
        return request

    def step(self) -> None:
        self.engine.step()
        self.clock[0] += 1
        self.check()

    def check(self) -> None:
        self.kv_cache.check([request for request in self.requests.values() if request.finish_reason is None])

    def run(self, max_steps: int = 4000) -> dict[str, Result]:
        for _ in range(max_steps):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "it does not end"
        assert self.kv_cache.num_free_blocks == self.kv_cache.num_blocks, "blocks leaked"
        assert self.scheduler.num_running == self.scheduler.num_waiting == 0
        return self.results


def make_request(request_id: str, prompt: Sequence[int], *, output: Sequence[int] = (), **options: Any) -> Request:
    """A request from keyword arguments for itself and its DecodeParams; `output` makes it a replayed one."""
    own = {key: options.pop(key) for key in ("priority", "deadline", "cache_salt") if key in options}
    return Request(
        id=request_id,
        token_ids=[*prompt, *output],
        num_prompt_tokens=len(prompt),
        params=DecodeParams(**options),
        **own,
    )


def make_workload(seed: int = 0) -> dict[str, tuple[list[int], dict[str, Any]]]:
    """Prompts and parameters that touch every feature, by request id."""
    draw = random.Random(seed)
    shared = [draw.randrange(VOCAB_SIZE) for _ in range(40)]
    features: list[dict[str, Any]] = [
        {},
        {"top_k": 20, "top_p": 0.9},
        {"repetition_penalty": 1.3},
        {"presence_penalty": 0.7, "frequency_penalty": 0.4},
        {"logit_bias": {5: 4.0, 9: -100.0, 11: 2.5}, "frequency_penalty": 1.0},
        {"num_prompt_logprobs": 2, "num_logprobs": 3},
        {"min_tokens": 6, "stop_token_ids": frozenset(range(1, 97, 2))},
        {"allowed_token_ids": tuple(range(10, 60)), "min_p": 0.05},
        {"bad_words_ids": ((7,), (20, 21), *((a, b) for a in range(40) for b in range(0, 97, 3)))},
        {"num_prompt_logprobs": 0, "max_tokens": 0},
        {"num_logprobs": -1, "stop_token_ids": frozenset({35, 17})},
        {"ignore_eos": True, "num_prompt_logprobs": 1},
        {"grammar": walk(5, ends=[0, 1, 2, 3, 4]), "frequency_penalty": 0.3},
        {"grammar": walk(7, last=9), "num_logprobs": 2, "allowed_token_ids": tuple(range(90))},
    ]
    workload: dict[str, tuple[list[int], dict[str, Any]]] = {}
    for index in range(24):
        prompt = shared[: draw.choice([0, 17, 33, 40])] + [
            draw.randrange(VOCAB_SIZE) for _ in range(draw.randrange(1, 40))
        ]
        options = {"max_tokens": draw.randrange(1, 26), "temperature": (0.0, 0.7, 1.3)[index % 3], "seed": 1000 + index}
        workload[f"r{index}"] = prompt, options | features[index % len(features)]
    for index in range(4):  # the same block-aligned prompt at once
        workload[f"same{index}"] = shared[:32], {"max_tokens": 9, "temperature": index % 2 * 0.8, "seed": 7}
    for index in range(3):  # to the end of the context
        prompt = shared + shared[: 10 * index]
        workload[f"long{index}"] = (
            prompt,
            {"max_tokens": 500, "temperature": 0.9, "seed": 2**63 + index, "ignore_eos": True},
        )
    return workload


def compare(name: str, got: Result, want: Result, skipped: int = 0) -> None:
    """`got` is what `want` is, its first `skipped` tokens apart."""
    assert got.token_ids == want.token_ids[skipped:], name
    assert (got.finish_reason, got.stop_token_id) == (want.finish_reason, want.stop_token_id), name
    _compare_logprobs(name, got.logprobs, want.logprobs[skipped:])
    _compare_logprobs(name, got.prompt_logprobs, want.prompt_logprobs)


def _compare_logprobs(name: str, got: list[TokenLogprobs], want: list[TokenLogprobs]) -> None:
    assert [(one.token_id, one.rank, [id_ for id_, _ in one.top]) for one in got] == [
        (one.token_id, one.rank, [id_ for id_, _ in one.top]) for one in want
    ], name
    values = [[one.logprob, *(value for _, value in one.top)] for one in got]
    expected = [[one.logprob, *(value for _, value in one.top)] for one in want]
    for mine, theirs in zip(values, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


Gold = Mapping[str, Result]


def make_gold(workload: Mapping[str, tuple[list[int], dict[str, Any]]]) -> dict[str, Result]:
    """What each request gives when it is alone."""
    world = World.make(ALONE)
    for request_id, (prompt, options) in workload.items():
        world.add(make_request(request_id, prompt, **options))
    return world.run()
