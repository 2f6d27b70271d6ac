"""A service: an engine with its scheduler and cache around a runner, watched at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.draft_pace import DraftPolicy
from ..core.engine import Engine
from ..core.interfaces import Drafter, KVCache, ModelRunner, RunnerInfo, Scheduler
from ..core.kv_cache import KVCacheConfig
from ..core.sampling import HostSampler
from ..core.scheduler import SchedulerConfig
from ..core.types import FinishReason, Request, RequestOutput, StepStats, TokenLogprobs
from .cases import Case, finish_of
from .judge import judge
from .lab import MAX_MODEL_LEN, MAX_NUM_SEQS, NUM_BLOCKS, Lab

MAX_STEPS = 20_000
"""A request that needs more steps than this is taken to hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How to serve. Zero leaves a number to the runner."""

    model: str = "llama"
    scheduler: str = "continuous"
    kv_cache: str = "auto"  # contiguous for a runner whose blocks hold whole requests, else paged: as in service
    prefix_caching: bool = True
    drafter: Callable[[RunnerInfo], Drafter] | None = None
    draft_policy: DraftPolicy | None = None  # None: all guesses are verified
    max_num_seqs: int = 0
    max_num_batched_tokens: int = 0
    max_num_logits: int = 0
    block_size: int = 16  # asked of the runner, as is the next
    runner_blocks: int = NUM_BLOCKS
    num_blocks: int = 0  # of those that the KV cache hands out
    every: int = 0  # steps between arrivals; 0: all at once
    wrap: Callable[[ModelRunner], ModelRunner] | None = None  # put something around the runner


class Service:
    """Serves cases, keeps what was published, and asserts the core's invariants after every step."""

    def __init__(self, lab: Lab, setup: Setup) -> None:
        self.lab, self.setup = lab, setup
        lab.need("chunked_prefill")  # which every scheduler uses
        if setup.drafter:
            lab.need("speculative")
        self.runner = _runner(lab, setup)
        info = self.runner.info
        self.info: RunnerInfo = replace(info, num_blocks=setup.num_blocks or info.num_blocks)
        kv_cache = setup.kv_cache
        if kv_cache == "auto":
            kv_cache = "contiguous" if info.block_size >= info.max_model_len else "paged"
        shares = lab.can.block_copies if kv_cache == "contiguous" else lab.can.prefix_caching
        config = KVCacheConfig(prefix_caching=setup.prefix_caching and bool(shares))
        self.kv: KVCache = lab.plugins.kv_caches.get_factory(kv_cache)(self.info, config)
        limits = _limits(self.info, setup)
        self.scheduler: Scheduler = lab.plugins.schedulers.get_factory(setup.scheduler)(self.kv, limits)
        self.engine = Engine(
            setup.wrap(self.runner) if setup.wrap else self.runner,
            self.scheduler,
            self.kv,
            sampler=self.runner.sampler or HostSampler(),
            drafter=setup.drafter(self.info) if setup.drafter else None,
            draft_policy=setup.draft_policy,
            publish=self._publish,
            on_step=self._watch,
        )
        self.cases: dict[str, Case] = {}
        self.requests: dict[str, Request] = {}
        self.tokens: dict[str, list[int]] = {}
        self.logprobs: dict[str, list[TokenLogprobs]] = {}
        self.prompt_logprobs: dict[str, list[TokenLogprobs]] = {}
        self.ended: dict[str, RequestOutput] = {}  # the output that said why it ended
        self.stats: list[StepStats] = []

    def add(self, case: Case) -> Request:
        """Submit one case."""
        if case.params.num_prompt_logprobs is not None:
            self.lab.need("prompt_logprobs")
        request = case.request()
        self.cases[case.name], self.requests[case.name] = case, request
        self.tokens[case.name] = list(case.done)
        self.engine.add(request)
        return request

    def steps(self, count: int) -> None:
        """Take some steps, or fewer if the work runs out."""
        for _ in range(count):
            if not self.engine.has_work:
                return
            self.engine.step()
            self._check()

    def run(self) -> None:
        """Serve until nothing is left to do; everything must come to an end and every block come home."""
        for _ in range(MAX_STEPS):
            if not self.engine.has_work:
                break
            self.steps(1)
        assert not self.engine.has_work, f"still busy after {MAX_STEPS} steps: {self._open()}"
        self.engine.run()  # publishes what is left
        assert not self._open(), f"never ended: {self._open()}"
        assert self.kv.num_free_blocks == self.kv.num_blocks, "blocks leaked"

    def serve(self, cases: Sequence[Case]) -> None:
        """Submit cases (`setup.every` steps apart), run to the end, judge."""
        for case in cases:
            self.add(case)
            self.steps(self.setup.every)
        self.run()
        self.judge()

    def judge(self, *names: str) -> None:
        """Judge the outputs of these requests, or of all: against the golden in exact dtypes, by the oracle else."""
        for name in names or self.cases:
            case, tokens = self.cases[name], self.tokens[name]
            reason = finish_of(case, tokens, self.info.eos_token_ids, self.info.max_model_len)
            assert self.ended[name].finish_reason == reason, (
                f"{name} ended with {self.ended[name].finish_reason} ({self.ended[name].error}); "
                f"due was {reason} after {len(tokens)} tokens {tokens}"
            )
            self.lab.same_tokens(self.setup.model, case, tokens)
            same_model = case.tokens is not None and self.lab.target.quantization is None
            golden = list(case.tokens or ()) if same_model else None
            if golden is not None and tokens == golden and self.lab.target.exact:
                self.lab.tally.decided += len(tokens)
                continue
            explain = self.lab.explain(self.setup.model)
            tally = judge(case, tokens, self.setup.model, self.lab.target.precision, explain)
            self.lab.tally.add(tally)
            assert golden is None or tally.flips or tokens == golden, f"{name}: got {tokens}, expected {golden}"

    @property
    def num_drafted(self) -> int:
        """Drafted tokens that were verified."""
        return sum(s.num_drafted for s in self.stats)

    @property
    def num_accepted(self) -> int:
        """Drafted tokens that were accepted."""
        return sum(s.num_accepted for s in self.stats)

    @property
    def num_preemptions(self) -> int:
        """Preemptions so far."""
        return self.scheduler.num_preemptions

    def _publish(self, outputs: list[RequestOutput]) -> None:
        for output in outputs:
            name = output.request_id
            assert name not in self.ended, f"{name}: an output after the end"
            self.tokens[name] += output.token_ids
            self.logprobs.setdefault(name, []).extend(output.logprobs or [])
            self.prompt_logprobs.setdefault(name, []).extend(output.prompt_logprobs or [])
            if output.finish_reason is not None:
                self.ended[name] = output

    def _watch(self, stats: StepStats) -> None:
        self.stats.append(stats)

    def _open(self) -> list[str]:
        return [name for name, r in self.requests.items() if name not in self.ended and not _left(r)]

    def _check(self) -> None:
        """Hold the core to its invariants between steps."""
        self.kv.check([r for r in self.requests.values() if r.block_ids])
        for name, request in self.requests.items():
            assert request.num_computed_tokens <= max(len(request.token_ids) - 1, 0), f"{name}: computed too much"
            output = request.token_ids[request.num_prompt_tokens :]
            assert output[: len(self.tokens[name])] == self.tokens[name], f"{name}: published what it does not hold"


def serve(lab: Lab, cases: Sequence[Case], **setup: Any) -> Service:
    """Serve cases on a new engine and judge every token."""
    service = Service(lab, Setup(**setup))
    service.serve(cases)
    return service


def _left(request: Request) -> bool:
    return request.finish_reason is FinishReason.ABORT


def _runner(lab: Lab, setup: Setup) -> ModelRunner:
    if setup.kv_cache != "auto" and getattr(lab.plugins.kv_caches.get_factory(setup.kv_cache), "whole_rows", False):
        return lab.runner(setup.model, block_size=MAX_MODEL_LEN, num_blocks=MAX_NUM_SEQS)
    if setup.block_size == 16:
        return lab.runner(setup.model)
    return lab.runner(setup.model, block_size=setup.block_size, num_blocks=setup.runner_blocks)


def _limits(info: RunnerInfo, setup: Setup) -> SchedulerConfig:
    """Take what the runner grants, or less."""
    full = SchedulerConfig.from_info(info)
    return replace(
        full,
        max_num_seqs=min(setup.max_num_seqs or full.max_num_seqs, full.max_num_seqs),
        max_num_batched_tokens=min(
            setup.max_num_batched_tokens or full.max_num_batched_tokens, full.max_num_batched_tokens
        ),
        max_num_logits=min(setup.max_num_logits or full.max_num_logits, full.max_num_logits),
    )
