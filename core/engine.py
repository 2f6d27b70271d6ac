"""Engine: the loop that plans a step, runs it, samples it and folds it back in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from .batch import Sampled, SamplingRows
from .batch_builder import BatchBuilder
from .capabilities import Support
from .constraining import Constraining
from .constraints import GrammarCompiler
from .draft_pace import DraftPolicy
from .drafting import DraftCounts, Drafting
from .interfaces import Drafter, KVCache, Logits, ModelRunner, RunnerInfo, Sampler, Scheduler
from .sampling import HostSampler
from .types import EngineError, FinishReason, Request, RequestOutput, Scheduled, StepStats, Unsupported

Copies = Sequence[tuple[int, int, int]]

_NOTHING = Sampled(np.empty(0, np.int32))

_MAX_FRUITLESS_STEPS = 3
"""In a row, each with a single request that failed: it is the device that is lost, not the requests that are wrong."""


class Engine:
    """Requests in, tokens out, one step after the other. Not thread-safe; `publish` may call `add` and `abort`.

    `publish` gets each step's outputs: while the next step is computed where the runner is asynchronous, else at once.
    Without a `draft_policy` all that the drafter guesses is verified, whether it pays or not.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        kv_cache: KVCache,
        *,
        sampler: Sampler | None = None,
        drafter: Drafter | None = None,
        draft_policy: DraftPolicy | None = None,
        publish: Callable[[list[RequestOutput]], None],
        on_step: Callable[[StepStats], None] | None = None,
        prompt_logprobs: Support = True,
        grammars: GrammarCompiler | None = None,
    ) -> None:
        self.info: RunnerInfo = runner.info
        self._runner = runner
        self._scheduler = scheduler
        self._kv = kv_cache
        self._sampler = sampler or runner.sampler or HostSampler()
        self._drafting = Drafting(drafter, self.info.vocab_size, draft_policy)
        self._constraining = Constraining(grammars, self.info.vocab_size, self.info.eos_token_ids)
        self._publish = publish
        self._on_step = on_step
        self._prompt_logprobs = prompt_logprobs
        self._pending: list[RequestOutput] = []
        self._num_fruitless_steps = 0
        self._builder = BatchBuilder(
            max_num_seqs=self.info.max_num_seqs,
            block_size=kv_cache.block_size,
            vocab_size=self.info.vocab_size,
        )

    @property
    def has_work(self) -> bool:
        """Whether there is anything to compute or to publish."""
        return self._scheduler.has_work or bool(self._pending) or self._constraining.num_waiting > 0

    def add(self, request: Request) -> None:
        """Queue a request. Raises ValueError if it could never run."""
        if request.params.num_prompt_logprobs is not None and self._prompt_logprobs is not True:
            raise ValueError(f"num_prompt_logprobs: the backend does not score prompts: {self._prompt_logprobs.reason}")
        if request.params.grammar is None or self._constraining.take(request):
            self._scheduler.add(request)

    def abort(self, request_id: str) -> bool:
        """Drop a request and free its blocks at once, whatever its state. False if it is not here (any more).

        Nothing of it is published any more, tokens that wait for the next step included.
        """
        self._drafting.release(request_id)
        dropped = self._scheduler.abort(request_id) or self._constraining.forget(request_id)
        if dropped:
            self._pending = [output for output in self._pending if output.request_id != request_id]
        return dropped

    def step(self) -> None:
        """Compute one step for whoever is next. Raises EngineError when the engine cannot go on."""
        meter = None if self._on_step is None else _Meter(self._scheduler)
        if self._constraining.num_waiting:
            self._add_compiled()
        plan = self._scheduler.schedule()
        copies = self._kv.take_block_copies()
        outputs = self._compute(plan, copies)
        self._pending += outputs
        if not self.info.asynchronous or not self._scheduler.has_work:
            self._flush()
        self._drafting.draft(plan, outputs)
        if meter is not None and self._on_step is not None:
            self._on_step(meter.read(plan, outputs, self._kv, self._drafting.take_counts()))

    def run(self) -> None:
        """Step until there is no work left."""
        while self.has_work:
            self.step()

    def close(self) -> None:
        """Give back the runner's and the drafter's memory."""
        try:
            self._drafting.close()
            self._constraining.close()
        finally:
            self._runner.close()

    def _add_compiled(self) -> None:
        """Queue the requests whose grammars are compiled by now, and report those whose cannot be."""
        for request, error in self._constraining.ready(block=not self._scheduler.has_work):
            try:
                if error:
                    raise ValueError(error)
                self._scheduler.add(request)
            except ValueError as refusal:
                output = RequestOutput(
                    request_id=request.id, token_ids=[], finish_reason=FinishReason.ERROR, error=str(refusal)
                )
                self._pending.append(output)

    def _compute(self, plan: Sequence[Scheduled], copies: Copies) -> list[RequestOutput]:
        """Run and sample a plan and fold it in; where that raises, find out whose fault it was."""
        try:
            logits, rows = self._forward(plan, copies)  # may return before the device is done
        except Exception as error:
            return self._compute_apart(plan, copies, error)
        self._flush()  # so the last step's tokens go out meanwhile
        try:
            sampled = self._sample(plan, logits, rows)  # the only synchronisation point
        except Exception as error:
            return self._compute_apart(plan, copies, error)
        self._num_fruitless_steps = 0
        return self._update(plan, sampled)

    def _forward(self, plan: Sequence[Scheduled], copies: Copies) -> tuple[Logits, SamplingRows | None]:
        if not plan:
            return None, None
        batch = self._builder.build(plan, copies)
        return self._runner.forward(batch), batch.sampling

    def _sample(self, plan: Sequence[Scheduled], logits: Logits, rows: SamplingRows | None) -> Sampled:
        """Draw. Masks are made here, for which the device of an asynchronous runner need not wait."""
        return self._sampler.sample(logits, self._constraining.mask(plan, rows)) if rows else _NOTHING

    def _update(self, plan: Sequence[Scheduled], sampled: Sampled) -> list[RequestOutput]:
        """Fold a step in, but for the requests whose grammars could not be followed: these fail, alone."""
        failures = [self._scheduler.fail(*failure) for failure in self._constraining.take_failures()]
        return failures + self._scheduler.update(plan, sampled)

    def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            self._publish(pending)

    def _compute_apart(self, plan: Sequence[Scheduled], copies: Copies, error: Exception) -> list[RequestOutput]:
        """Run the requests of a step that raised one by one, failing those that raise alone; the rest go on."""
        _raise_if_out_of_memory(error)
        outputs: list[RequestOutput] = []
        failures: list[tuple[Request, Exception]] = []
        present = [share for share in plan if share.request.finish_reason is None]  # publish may have aborted others
        for share in present:
            try:
                sampled = self._sample([share], *self._forward([share], copies))
            except Exception as failure:
                _raise_if_out_of_memory(failure)
                failures.append((share.request, failure))
            else:
                copies = ()  # done; a second time they could undo what was written behind them since
                outputs += self._update([share], sampled)
        self._give_up_if_lost(present, [failure for _, failure in failures])
        return outputs + [self._scheduler.fail(request, _describe(failure)) for request, failure in failures]

    def _give_up_if_lost(self, plan: Sequence[Scheduled], failures: Sequence[Exception]) -> None:
        """Raise EngineError where nothing works any more. Unsupported is a runner's verdict, not a fault."""
        num_faults = sum(not isinstance(failure, Unsupported) for failure in failures)
        all_failed = 0 < num_faults == len(plan)
        self._num_fruitless_steps = self._num_fruitless_steps + 1 if all_failed else 0
        if all_failed and (num_faults > 1 or self._num_fruitless_steps == _MAX_FRUITLESS_STEPS):
            raise EngineError(f"every request failed, the last one with {failures[-1]!r}") from failures[-1]


def _raise_if_out_of_memory(error: Exception) -> None:
    if isinstance(error, MemoryError):
        raise EngineError(f"the step failed: {error!r}") from error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class _Meter:
    """Measures one step for StepStats."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._started = time.perf_counter()
        self._before = self._counters()

    def _counters(self) -> tuple[int, int, int]:
        scheduler = self._scheduler
        return scheduler.num_preemptions, scheduler.num_prefix_queries, scheduler.num_prefix_hits

    def read(
        self, plan: Sequence[Scheduled], outputs: Sequence[RequestOutput], kv_cache: KVCache, counts: DraftCounts
    ) -> StepStats:
        """The step in numbers."""
        preemptions, queries, hits = (
            after - before for after, before in zip(self._counters(), self._before, strict=True)
        )
        num_new_tokens = sum(len(output.token_ids) for output in outputs)
        num_drawn = sum(1 for output in outputs if output.token_ids)
        return StepStats(
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting,
            num_requests=len(plan),
            num_tokens=sum(share.num_tokens for share in plan),
            num_new_tokens=num_new_tokens,
            num_blocks=kv_cache.num_blocks,
            num_free_blocks=kv_cache.num_free_blocks,
            num_preemptions=preemptions,
            num_prefix_queries=queries,
            num_prefix_hits=hits,
            num_drafted=sum(share.num_drafts for share in plan),
            num_accepted=num_new_tokens - num_drawn,
            duration=time.perf_counter() - self._started,
            **counts._asdict(),
        )
