"""How much is guessed, and what a draft model may take of the memory, follow from the configuration and the runner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from isotoken.backends.reference.backend import ReferenceBackend
from isotoken.conformance.models import DRAFT, LLAMA, write_checkpoint
from isotoken.core.draft_pace import DraftPolicy
from isotoken.core.types import DecodeParams, Request, RequestOutput, StepStats
from isotoken.plugins.build import VERIFY_COST, Built, EngineConfig, build_engine
from isotoken.plugins.hookspecs import API_VERSION, hookimpl
from isotoken.plugins.manager import Plugins


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for spec in (LLAMA, DRAFT):
        write_checkpoint(spec, root / spec.name)
    return root


class Watched:
    """A plugin with the reference backend by another name: what it is asked for is kept, what it says can be set."""

    ISOTOKEN_API = API_VERSION
    name = "watched"

    def __init__(self, **said: Any) -> None:
        self.said, self.configs, self.stats = said, [], []
        self.inner = ReferenceBackend()
        self.capabilities = self.inner.capabilities

    @hookimpl
    def register_backends(self, register: Any) -> None:
        register(self.name, lambda: self)

    @hookimpl
    def on_step(self, stats: StepStats) -> None:
        self.stats.append(stats)

    def load(self, checkpoint: Any, config: Any) -> Any:
        self.configs.append(config)
        runner = self.inner.load(checkpoint, config)
        runner.info = replace(runner.info, **self.said)
        return runner


def build(watched: Watched, folder: Path, **settings: Any) -> Built:
    for name in ("draft_model",) if "draft_model" in settings else ():
        settings[name] = str(folder / settings[name])
    published: list[RequestOutput] = []
    config = EngineConfig(model=str(folder / "llama"), backend="watched", **settings)
    return build_engine(config, Plugins.load([("watched", watched)]), published.extend)


def policy(built: Built) -> DraftPolicy | None:
    return built.engine._drafting._policy


def test_without_more_a_guess_costs_what_it_does_on_such_a_device(folder: Path) -> None:
    built = build(Watched(), folder, drafter="ngram", num_draft_tokens=5)
    assert policy(built) == DraftPolicy(num_draft_tokens=5, verify_cost=VERIFY_COST["cpu"], propose_cost=0.0)
    (reason,) = [reason for reason in built.reasons if reason.startswith("drafts")]
    assert "up to 5 at once: verifying one costs 0.06 of a step, making it 0" in reason
    on_gpu = build(Watched(device="cuda:1"), folder, drafter="ngram")
    assert (found := policy(on_gpu)) is not None and found.verify_cost == VERIFY_COST["cuda"]


def test_the_runner_knows_better_and_the_user_best(folder: Path) -> None:
    said = Watched(verify_cost=0.3)
    for settings, cost in (({}, 0.3), ({"verify_cost": 0.2}, 0.2)):
        found = policy(build(said, folder, drafter="ngram", **settings))
        assert found is not None and found.verify_cost == cost


def test_a_fixed_number_has_no_policy_nor_does_an_engine_without_drafter(folder: Path) -> None:
    assert policy(build(Watched(), folder, drafter="ngram", fixed_drafts=True)) is None
    built = build(Watched(), folder)
    assert policy(built) is None and not [reason for reason in built.reasons if reason.startswith("drafts")]


def test_a_draft_models_guess_costs_its_share_of_the_weights(folder: Path) -> None:
    built = build(Watched(), folder, draft_model="draft")
    runners = built.engine._runner, built.engine._drafting._drafter._runner  # type: ignore[union-attr]
    big, small = (runner.info.weight_bytes for runner in runners)
    assert 0 < small < big
    assert (found := policy(built)) is not None and found.propose_cost == pytest.approx(small / big)
    silent = policy(build(Watched(weight_bytes=0), folder, draft_model="draft"))
    assert silent is not None and silent.propose_cost == 0


def run(built: Built) -> list[int]:
    request = Request(
        id="r",
        token_ids=[5, 6, 7],
        num_prompt_tokens=3,
        params=DecodeParams(max_tokens=60, temperature=0.0, ignore_eos=True),
    )
    built.engine.add(request)
    built.engine.run()
    return request.token_ids


def test_a_draft_model_as_large_as_the_model_is_always_right_and_does_not_pay(folder: Path) -> None:
    plain, adaptive, fixed = Watched(), Watched(), Watched()
    tokens = run(build(plain, folder))
    assert run(build(adaptive, folder, draft_model="llama")) == tokens
    assert run(build(fixed, folder, draft_model="llama", fixed_drafts=True)) == tokens
    assert sum(stats.num_accepted for stats in fixed.stats) > 40
    assert sum(stats.num_drafted for stats in adaptive.stats) == 0
    assert sum(stats.num_undrafted for stats in adaptive.stats) > 50


def test_memory_is_shared_out_for_the_same_tokens_in_both(folder: Path) -> None:
    watched = Watched()
    built = build(watched, folder, draft_model="draft", memory_fraction=0.8)
    target, draft = watched.configs
    sizes = [
        spec.num_layers * spec.num_kv_heads * spec.head_dim
        for spec in (built.checkpoint.spec, built.engine._drafting._drafter._runner.spec)  # type: ignore[union-attr]
    ]
    assert target.memory_fraction == pytest.approx(0.8 * sizes[0] / sum(sizes))
    assert (draft.block_size, draft.num_blocks) == (built.engine.info.block_size, built.engine.info.num_blocks)


def test_a_pool_that_was_asked_for_is_left_as_it_is(folder: Path) -> None:
    watched = Watched()
    build(watched, folder, draft_model="draft", num_blocks=50, block_size=8)
    target, draft = watched.configs
    assert (target.memory_fraction, target.num_blocks) == (0.9, 50)
    assert (draft.block_size, draft.num_blocks) == (8, 50)


def test_without_a_draft_model_nothing_is_set_aside(folder: Path) -> None:
    watched = Watched()
    build(watched, folder, drafter="ngram")
    assert [config.memory_fraction for config in watched.configs] == [0.9]
