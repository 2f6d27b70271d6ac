"""Setups, arrivals, priorities, replays, aborts, deadlines and stumbling runners drawn at random from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from isotoken.core.batch import Batch
from isotoken.core.draft_pace import DraftPolicy
from isotoken.core.interfaces import Drafter
from isotoken.core.kv_cache import PagedKVCache
from isotoken.core.scheduler import ContinuousScheduler
from isotoken.core.types import FinishReason, Request, RequestOutput
from isotoken.plugins.drafters import DrafterContext
from isotoken.plugins.drafters.model import ModelDrafter
from isotoken.plugins.drafters.ngram import NgramDrafter
from isotoken.plugins.kv_caches.contiguous import ContiguousKVCache
from isotoken.plugins.schedulers.adaptive import AdaptiveScheduler
from isotoken.plugins.schedulers.naive import naive_scheduler
from isotoken.plugins.schedulers.static import StaticScheduler

from .drafters import GarbageDrafter, KnowingDrafter
from .toy import ToyRunner
from .world import MAX_MODEL_LEN, Gold, Setup, World, compare, make_request, make_workload

WORKLOAD = make_workload()
ADAPTIVE = partial(AdaptiveScheduler, chunk=12)


def run_seed(seed: int, gold: Gold) -> World:
    """Draw a setup, run the workload through it and compare with what each request gives alone."""
    draw = random.Random(seed)
    return run_at_random(draw, gold, draw_setup(draw, gold))


def draw_drafter(draw: random.Random, gold: Gold) -> Callable[[ToyRunner], Drafter] | None:
    num_tokens = draw.choice([1, 3, 5])
    outputs = {name: result.token_ids for name, result in gold.items()}

    def model(runner: ToyRunner) -> Drafter:
        def load() -> ToyRunner:
            return ToyRunner(
                num_blocks=draw.choice([12, 400]),  # few: most requests find no room and get no drafts
                block_size=draw.choice([8, 16]),
                max_num_seqs=draw.choice([3, 24]),
                max_num_batched_tokens=draw.choice([19, 256]),
                max_model_len=draw.choice([MAX_MODEL_LEN, 60]),
                weights_seed=draw.choice([0, 0, 1]),  # the same model, or a stranger
            )

        context = DrafterContext(num_draft_tokens=num_tokens, info=runner.info, load_runner=load)
        return ModelDrafter(context)

    return draw.choice(
        [
            None,
            lambda runner: GarbageDrafter(num_tokens),
            lambda runner: KnowingDrafter(num_tokens, outputs),
            lambda runner: KnowingDrafter(num_tokens, outputs, p=0.7),
            lambda runner: NgramDrafter(DrafterContext(num_draft_tokens=num_tokens, info=runner.info)),
            model,
            model,
        ]
    )


def draw_setup(draw: random.Random, gold: Gold) -> Setup:
    block_size = draw.choice([1, 4, 16, 33, MAX_MODEL_LEN])
    max_num_seqs = draw.choice([2, 3, 8, 24])
    tight = draw.random() < 0.6
    rows = draw.choice([1, 4, 24])
    max_num_batched_tokens = draw.choice([7, 24, 61, 512])
    return Setup(
        block_size=block_size,
        num_blocks=rows if block_size == MAX_MODEL_LEN else -(-MAX_MODEL_LEN // block_size) + (0 if tight else 500),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_logits=draw.choice([max_num_seqs, max_num_seqs + 5, 512]),
        prefix_caching=draw.random() < 0.7,
        asynchronous=draw.random() < 0.4,
        kv_cache=ContiguousKVCache if block_size == MAX_MODEL_LEN and draw.random() < 0.8 else PagedKVCache,
        scheduler=draw.choice([ContinuousScheduler] * 4 + [ADAPTIVE, StaticScheduler, naive_scheduler]),
        drafter=draw_drafter(draw, gold),
        draft_policy=draw.choice([None, DraftPolicy(num_draft_tokens=4, verify_cost=draw.choice([0.01, 0.1, 0.5]))]),
    )


def run_at_random(draw: random.Random, gold: Gold, setup: Setup) -> World:
    """Let the workload arrive at random with random priorities, some replayed; abort some and let some expire."""
    world = World.make(setup)
    stumble(draw, world)
    order = list(WORKLOAD)
    draw.shuffle(order)
    arrivals = sorted(draw.randrange(1 + draw.choice([0, 40])) for _ in order)
    skipped: dict[str, int] = {}
    victims: set[str] = set(draw.sample(order, draw.choice([0, 4])))
    publish = world.engine._publish

    def publish_and_leave(outputs: list[RequestOutput]) -> None:
        publish(outputs)
        if victims and draw.random() < 0.03:
            world.engine.abort(draw.choice(sorted(victims)))

    world.engine._publish = publish_and_leave
    for step in range(10_000):
        while arrivals and arrivals[0] <= step:
            arrivals.pop(0)
            name = order.pop(0)
            request, skipped[name] = draw_request(draw, name, gold, expires=step + 9.0 if name in victims else None)
            world.add(request)
        live = sorted(victims & world.requests.keys())
        if live and draw.random() < 0.1:
            world.engine.abort(draw.choice(live))
            world.check()
        if not order and not world.engine.has_work:
            break
        world.step()
    world.run()
    for name, result in gold.items():
        got = world.results.get(name)
        if name not in victims:
            assert got is not None, name
            compare(name, got, result, skipped[name])
        elif got is not None and got.finish_reason in (None, FinishReason.TIMEOUT):
            start = skipped[name]
            assert got.token_ids == result.token_ids[start : start + len(got.token_ids)]
    return world


def stumble(draw: random.Random, world: World) -> None:
    """Let one forward in thirty of several requests raise, at once or when its logits are read; apart they succeed."""
    forward = world.runner.forward

    def forward_or_raise(batch: Batch) -> Any:
        if len(batch.row_ids) == 1 or draw.random() < 29 / 30:
            return forward(batch)
        if draw.random() < 0.5:
            raise RuntimeError("a passing fault")
        forward(batch)
        return Lost()

    world.runner.forward = forward_or_raise  # type: ignore[method-assign]


class Lost:
    """Logits of an asynchronous runner that failed."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("a passing fault, noticed late")


def draw_request(draw: random.Random, name: str, gold: Gold, expires: float | None) -> tuple[Request, int]:
    prompt, options = WORKLOAD[name]
    output: list[int] = gold[name].token_ids
    num_known = draw.randrange(len(output)) if output and draw.random() < 0.2 else 0
    own: dict[str, Any] = {"priority": draw.choice([0, 0, 1]), "deadline": expires}
    return make_request(name, prompt, output=output[:num_known], **options, **own), num_known
