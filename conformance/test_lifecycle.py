"""Requests that leave, fail, run late or never fit: LIF in SPEC.md."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from isotoken.conformance.cases import goldens
from isotoken.conformance.drafters import replay
from isotoken.conformance.lab import Lab
from isotoken.conformance.service import Service, Setup, serve
from isotoken.conformance.spec import spec
from isotoken.conformance.test_greedy import named
from isotoken.core.batch import Batch
from isotoken.core.interfaces import Logits, ModelRunner, RunnerInfo, Sampler
from isotoken.core.types import FinishReason

ALL = goldens("llama")
OTHERS = [case for case in ALL if case.name in ("greedy-short", "seeded", "greedy-block")]
LEAVER = named("greedy-long").but("leaver", max_tokens=60, ignore_eos=True)


def abort(service: Service, name: str) -> None:
    """Abort a request; its blocks are free at once and nothing of it is published any more."""
    said = list(service.tokens[name])
    held = len(service.requests[name].block_ids)
    before = service.kv.num_free_blocks
    assert service.engine.abort(name)
    assert not service.requests[name].block_ids
    assert service.kv.num_free_blocks >= before
    assert not held or service.kv.num_free_blocks > before
    service.kv.check([r for r in service.requests.values() if r.block_ids])
    assert not service.engine.abort(name), "aborted twice"
    service.run()
    assert service.tokens[name] == said
    service.judge(*(case for case in service.cases if case != name))


@spec("LIF-1")
def test_abort_while_waiting(lab: Lab) -> None:
    service = Service(lab, Setup(max_num_seqs=2, prefix_caching=False))
    for case in (*OTHERS, LEAVER):
        service.add(case)
    service.steps(2)
    assert not service.requests["leaver"].block_ids
    abort(service, "leaver")


@spec("LIF-1")
def test_abort_while_prefilling(lab: Lab) -> None:
    service = Service(lab, Setup(max_num_batched_tokens=20, prefix_caching=False))
    for case in (LEAVER, *OTHERS):
        service.add(case)
    service.steps(2)
    assert 0 < service.requests["leaver"].num_computed_tokens < len(LEAVER.prompt)
    abort(service, "leaver")


@spec("LIF-1")
@pytest.mark.parametrize("drafts", [False, True], ids=["plain", "speculating"])
def test_abort_while_decoding(lab: Lab, drafts: bool) -> None:
    if drafts:
        lab.need("speculative")
    known = {case.name: case.tokens or () for case in OTHERS}
    service = Service(lab, Setup(drafter=replay(known) if drafts else None))
    for case in (LEAVER, *OTHERS):
        service.add(case)
    service.steps(5)
    assert 0 < len(service.tokens["leaver"]) < 60
    abort(service, "leaver")


@spec("LIF-1")
def test_abort_while_preempted(lab: Lab) -> None:
    size = lab.runner().info.block_size
    service = Service(lab, Setup(num_blocks=-(-LEAVER.params.max_tokens // size) + -(-100 // size)))
    greedy = named("greedy-short").but("glutton", max_tokens=100, ignore_eos=True)
    for case in (greedy, LEAVER):
        service.add(case)
    leaver = service.requests["leaver"]
    while not leaver.num_preemptions and service.engine.has_work:
        service.steps(1)
    if size <= 16:
        assert leaver.num_preemptions
        assert not leaver.block_ids
        abort(service, "leaver")


@spec("LIF-1")
def test_abort_of_strangers(lab: Lab) -> None:
    service = serve(lab, OTHERS)
    assert not service.engine.abort("nobody")
    assert not service.engine.abort(OTHERS[0].name), "it has ended"


class Faulty:
    """A runner that raises whenever a batch holds the poisoned token."""

    def __init__(self, runner: ModelRunner, poison: int) -> None:
        self._runner, self._poison, self.raised = runner, poison, 0

    @property
    def info(self) -> RunnerInfo:
        """The runner's own."""
        return self._runner.info

    @property
    def sampler(self) -> Sampler | None:
        """The runner's own."""
        return self._runner.sampler

    def forward(self, batch: Batch) -> Logits:
        """Compute, or raise."""
        if self._poison in batch.input_ids:
            self.raised += 1
            raise RuntimeError("poisoned token")
        return self._runner.forward(batch)

    def close(self) -> None:
        """The runner stays."""


@spec("LIF-2")
@pytest.mark.parametrize("place", ["prompt", "output"])
def test_an_exception_fails_only_its_request(lab: Lab, place: str) -> None:
    said = serve(lab, ALL).tokens
    used = {token for case in OTHERS for token in (*case.prompt, *said[case.name])}
    victims = [case for case in ALL if case not in OTHERS and case.params.temperature == 0]
    fresh = {c.name: [t for t in said[c.name][2:-1] if t not in {*used, *c.prompt}] for c in victims}
    victim = next(case for case in victims if fresh[case.name])
    poison = fresh[victim.name][0]
    if place == "prompt":
        victim = replace(victim.but(prompt=(poison, *victim.prompt)), name=victim.name)
    service = Service(lab, Setup(wrap=lambda runner: Faulty(runner, poison)))
    for case in (OTHERS[0], victim, *OTHERS[1:]):
        service.add(case)
    service.run()
    if lab.target.exact or place == "prompt":
        output = service.ended[victim.name]
        assert output.finish_reason is FinishReason.ERROR
        assert "poisoned token" in (output.error or "")
    service.judge(*(case.name for case in OTHERS))


@spec("LIF-3")
def test_deadlines(lab: Lab) -> None:
    service = Service(lab, Setup(max_num_seqs=3, prefix_caching=False))
    late = replace(named("seeded-top-k"), name="late", deadline=time.monotonic() - 1)
    soon = replace(LEAVER, name="soon", deadline=time.monotonic() + 3600)
    for case in (late, soon, *OTHERS):
        service.add(case)
    service.run()
    assert service.ended["late"].finish_reason is FinishReason.TIMEOUT
    assert service.tokens["late"] == []
    service.judge("soon", *(case.name for case in OTHERS))


@spec("LIF-3")
def test_a_deadline_while_running(lab: Lab) -> None:
    """Time itself is the cause here: the pause lasts until the deadline has passed, however slow the machine is."""
    service = Service(lab, Setup())
    for case in OTHERS:
        service.add(case)
    service.steps(2)
    deadline = time.monotonic() + 0.1
    service.add(replace(LEAVER, deadline=deadline))
    service.steps(3)
    said = len(service.tokens["leaver"])
    while time.monotonic() <= deadline:
        time.sleep(0.01)
    service.run()
    assert service.ended["leaver"].finish_reason is FinishReason.TIMEOUT
    assert len(service.tokens["leaver"]) <= said + 1
    service.judge(*(case.name for case in OTHERS))


@spec("LIF-4")
def test_what_cannot_fit_is_refused(lab: Lab) -> None:
    service = Service(lab, Setup())
    limit = service.info.max_model_len
    good = named("greedy-short")
    for bad in (
        good.but("too long", prompt=(5,) * (limit + 1)),
        good.but("unknown token", prompt=(5, service.info.vocab_size)),
        good.but("negative token", prompt=(5, -1)),
        good.but("no prompt", prompt=()),
    ):
        with pytest.raises(ValueError):
            service.engine.add(bad.request())
    assert not service.engine.has_work
    service.serve([good])


@spec("LIF-4")
def test_what_exceeds_the_blocks_is_refused_or_cut(lab: Lab) -> None:
    size = lab.runner().info.block_size
    service = Service(lab, Setup(num_blocks=2))
    with pytest.raises(ValueError):
        service.engine.add(named("greedy-short").but("too long", prompt=(5,) * (2 * size + 1)).request())
    assert not service.engine.has_work


@spec("LIF-5")
def test_published_once_and_in_order(lab: Lab) -> None:
    service = serve(lab, ALL, max_num_batched_tokens=40, every=1)
    for name, request in service.requests.items():
        assert service.tokens[name] == request.token_ids[request.num_prompt_tokens :]
        assert not request.block_ids
    assert set(service.ended) == {case.name for case in ALL}
