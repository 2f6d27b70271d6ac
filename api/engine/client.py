"""AsyncEngine: the supervised engine as an event loop sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from ...core.types import RequestOutput
from ...plugins.build import EngineConfig
from ...plugins.manager import Plugins
from ..errors import NotReady
from ..structured.vetting import Vetting
from ..text import Choice, SamplingParams, TextModel
from .in_flight import Meter, Owner, RequestInFlight
from .limits import Admission, Limits
from .messages import Submit
from .prepare import prepare
from .recorder import Recorder
from .replay import Entry
from .stream import GenerationStream
from .supervisor import Listener, Supervisor
from .timed_choice import TimedChoice
from .types import EngineInfo, EngineStats, RequestStats, State

log = logging.getLogger("isotoken.engine")


class AsyncEngine:
    """The engine in a supervised child process, for one event loop."""

    info: EngineInfo
    text: TextModel
    vetting: Vetting  # tries out grammars before they are handed to `generate`

    def __init__(self, config: EngineConfig, limits: Limits, plugins: Plugins) -> None:
        """Prepare; `start` is the way to get one."""
        self.limits = limits
        self._config = config
        self._plugins = plugins
        self._has_listeners = bool(plugins.hook.on_request_finished.get_hookimpls())
        self._admission = Admission(limits, config.max_num_seqs)
        self._stats = EngineStats()
        self._in_flight: dict[Entry, tuple[RequestInFlight, int]] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        listener = Listener(
            on_output=self._on_output,
            on_failure=self._on_failure,
            on_started=self._on_started,
            on_step=self._stats.add,
            on_up=lambda info: self._stats.engine_is_up(info.num_blocks),
            on_gone=self._stats.engine_is_gone,
        )
        self._supervisor = Supervisor(config, limits, listener)
        self._owner = Owner(
            drop=self._supervisor.abort,
            choice_started=self._admission.started,
            choice_ended=self._on_ended,
            finished=self._on_finished,
        )

    @classmethod
    async def start(
        cls, config: EngineConfig, limits: Limits | None = None, *, plugins: Plugins | None = None
    ) -> AsyncEngine:
        """Spawn the child and wait until it is ready. `plugins` hear of finished requests; the child loads its own.

        Raises EngineFailed, or CheckpointError for the tokenizer, with the reason when it cannot start.
        """
        self = cls(config, limits or Limits(), plugins or Plugins.load())
        # The tokenizer and the weights are read at the same time.
        text = asyncio.create_task(asyncio.to_thread(TextModel.load, config.model))
        info = asyncio.create_task(self._supervisor.start())
        try:
            await asyncio.wait((text, info), return_when=asyncio.FIRST_EXCEPTION)
            for task in (text, info):
                if task.done():
                    task.result()
        except BaseException:
            info.cancel()
            await asyncio.gather(text, info, return_exceptions=True)
            await self._supervisor.stop("the engine could not start")
            raise
        self.text, self.info = text.result(), info.result()
        self.vetting = Vetting(self.info)
        self._admission.max_num_seqs = self.info.max_num_seqs
        return self

    @property
    def state(self) -> State:
        """What it is doing now. "ready" and "restarting" accept requests."""
        state = self._supervisor.state
        return "draining" if self._draining and state != "stopped" else state

    @property
    def takes_requests(self) -> bool:
        """Whether it is up, or being started again: requests wait then."""
        return self.state in ("ready", "restarting")

    @property
    def is_stuck(self) -> bool:
        """Whether it has work and makes no step, or has been restarting for some seconds."""
        return self._supervisor.is_stuck

    @property
    def silence(self) -> float:
        """Seconds for which an answer of it has been due; 0: none is."""
        return self._supervisor.silence

    @property
    def failure(self) -> str:
        """Why it has stopped; empty while it has not."""
        return self._supervisor.failure

    @property
    def stats(self) -> EngineStats:
        """Gauges of the latest step and counters since the start: always the same object."""
        stats, supervisor = self._stats, self._supervisor
        stats.num_requests_in_flight = self._admission.num_in_flight
        stats.num_waiting_prompt_tokens = self._admission.num_waiting_prompt_tokens
        stats.num_restarts, stats.num_replayed = supervisor.num_restarts, supervisor.num_replayed
        stats.num_failed_alone = supervisor.num_condemned
        return stats

    @property
    def pid(self) -> int | None:
        """The engine's process id, while there is one."""
        return self._supervisor.pid

    def generate(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        request_id: str,
        priority: int = 0,
        deadline_s: float | None = None,
        cache_salt: bytes = b"",
        whole: bool = False,
        meter: Meter | None = None,
        timed: bool = False,
    ) -> GenerationStream:
        """Submit a request at once and return its deltas, the n choices interleaved; or each choice in one, if `whole`.

        Lower priorities run first. A `meter` may end it early, with finish_reason "length"; `timed`: measure
        detokenizing too. Raises before anything is submitted: ParameterError, ContextLengthError, Overloaded, NotReady.
        """
        if self.state not in ("ready", "restarting"):
            raise NotReady(self.state, self._supervisor.failure)
        decode_params = prepare(prompt_ids, params, self.info, self.text, max_logprobs=self.limits.max_logprobs)
        self._admission.admit(params.n, len(prompt_ids))
        self._idle.clear()
        limit = self.limits.request_timeout_s
        timeout = limit if deadline_s is None else deadline_s if limit is None else min(deadline_s, limit)
        whole = whole and not params.stop  # a stop string may end a choice at any token
        recorder = Recorder(request_id, self.info.model, len(prompt_ids), params.n)
        choices = [
            (
                Entry(
                    submit=Submit(
                        request_id, prompt_ids, resolved, priority=priority, cache_salt=cache_salt, whole=whole
                    ),
                    deadline=None if timeout is None else recorder.submitted + timeout,
                ),
                TimedChoice(self.text, params, self.info.eos_token_ids, recorder)
                if timed
                else Choice(self.text, params, self.info.eos_token_ids),
            )
            for resolved in decode_params
        ]
        request = RequestInFlight(self._owner, recorder, choices, whole=whole, meter=meter)
        stream = request.open(request_id, timeout)
        for index, (entry, _) in enumerate(choices):
            self._in_flight[entry] = request, index
            self._supervisor.submit(entry)
        return stream

    async def drain(self, timeout: float) -> None:
        """Take no new requests and wait for those in flight, at most `timeout` seconds."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)

    async def stop(self, reason: str = "the server is shutting down") -> None:
        """End the child. Requests in flight fail with EngineFailed and this reason."""
        await self._supervisor.stop(reason)
        await self.vetting.close()

    # --- what the supervisor and the requests say -----------------------------------------------

    def _on_output(self, entry: Entry, output: RequestOutput) -> None:
        if entry in self._in_flight:
            request, index = self._in_flight[entry]
            try:
                request.on_output(index, output)
            except Exception as error:  # a tokenizer's, which may be a plugin's: the other requests go on
                log.exception("the output of a request could not be turned into text")
                request.fail(f"the output could not be turned into text: {error!r}")

    def _on_failure(self, entry: Entry, error: str) -> None:
        if entry in self._in_flight:
            self._in_flight[entry][0].fail(error)

    def _on_started(self, entry: Entry) -> None:
        if entry in self._in_flight:
            self._in_flight[entry][0].on_scheduled(self._stats.step_duration)

    def _on_ended(self, entry: Entry, latency: float) -> None:
        del self._in_flight[entry]
        self._admission.ended(latency)
        if not self._in_flight:
            self._idle.set()

    def _on_finished(self, stats: RequestStats) -> None:
        if not self._has_listeners:
            return
        try:
            self._plugins.hook.on_request_finished(stats=stats)
        except Exception:  # a stranger's hook must not take the stream down with it
            log.exception("a plugin's on_request_finished failed")
