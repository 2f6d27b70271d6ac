"""Supervisor: keeps an engine's process alive, and the requests in it going, whatever happens to the process."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ...core.types import FinishReason, RequestOutput, StepStats
from ...plugins.build import EngineConfig
from ..errors import EngineFailed
from .limits import Limits
from .messages import Abort, Failed, Ready, Step
from .process import EngineProcess
from .pulse import LOOK_S, CpuMeter, Pulse
from .replay import Entry, Replay
from .types import EngineInfo, State

log = logging.getLogger("isotoken.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who hears what the engine brings. Called in the event loop."""

    on_output: Callable[[Entry, RequestOutput], None]
    on_failure: Callable[[Entry, str], None]  # the entry is out
    on_started: Callable[[Entry], None]  # scheduled for the first time
    on_step: Callable[[StepStats], None]
    on_up: Callable[[EngineInfo], None]  # an engine stands
    on_gone: Callable[[], None]  # its process is no more


class Supervisor:
    """Runs one EngineProcess after the other and replays into each what the last left unfinished."""

    def __init__(self, config: EngineConfig, limits: Limits, listener: Listener) -> None:
        self._config = config
        self._limits = limits
        self._listener = listener
        self._replay = Replay()
        self._names = (str(n) for n in itertools.count())
        self._in_engine: dict[str, Entry] = {}
        self._process: EngineProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._pulse = Pulse(limits.stall_after_s)
        self._died = 0.0  # time.monotonic(): when the last process ended
        self._info: EngineInfo | None = None
        self._num_waiting = 0  # requests that the engine's latest step left waiting
        self._num_fruitless = 0  # lives of the engine since it last brought a token
        self.state: State = "starting"
        self.failure = ""  # why it stopped
        self.num_restarts = 0
        self.num_replayed = 0
        self.num_condemned = 0

    @property
    def pid(self) -> int | None:
        """The engine's process id, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def is_stuck(self) -> bool:
        """Whether it has work and makes no step, or has been restarting for longer than it may be silent."""
        if self.state == "restarting":
            return time.monotonic() - self._died > self._limits.stall_after_s
        return self._pulse.is_stuck

    @property
    def silence(self) -> float:
        """Seconds for which it has owed a message; 0: it owes none."""
        return self._pulse.silence

    async def start(self) -> EngineInfo:
        """Start the engine, and watch over it from then on. Raises EngineFailed with the reason if it cannot."""
        try:
            info = await self._bring_up()
        except BaseException as error:
            self.state, self.failure = "stopped", str(error)
            if self._process is not None:
                self._process.kill()
                await self._process.ended()
            raise
        self.state = "ready"
        self._send(self._replay.engine_is_up())
        self._task = asyncio.create_task(self._watch_over(), name="isotoken-supervisor")
        return info

    async def stop(self, reason: str) -> None:
        """End the engine. What is in flight fails with `reason`."""
        idle = self.state == "ready" and not self._in_engine
        self.state, self.failure = "stopped", reason
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        process, self._process = self._process, None
        self._listener.on_gone()
        self._fail_all(reason)
        if process is None:
            return
        if idle:
            await process.stop()
        else:  # it loads or computes, and might not listen for long
            process.kill()
            await process.ended()

    def submit(self, entry: Entry) -> None:
        """Take a request on; it goes to the engine as soon as it may."""
        self._send(self._replay.add(entry))

    def abort(self, entry: Entry) -> None:
        """Drop a request; the engine frees its blocks before its next step."""
        self._recall([entry])
        self._send(self._replay.remove(entry))

    # --- the engine's lives ---------------------------------------------------------------------

    async def _bring_up(self) -> EngineInfo:
        """Spawn a process and wait until its engine stands."""
        process = self._process = await EngineProcess.spawn(self._config)
        try:
            async with asyncio.timeout(self._limits.start_timeout_s):
                message = await process.receive()
        except TimeoutError:
            process.kill()
            await process.ended()
            raise EngineFailed(f"the engine was not ready after {self._limits.start_timeout_s:.0f} s") from None
        if isinstance(message, Ready):
            if self._info is not None and message.info.checkpoint != self._info.checkpoint:
                process.kill()
                await process.ended()
                raise EngineFailed(f"the files in {message.info.model} are no longer those that were loaded at first")
            self._info, self._num_waiting = message.info, 0
            self._pulse.reset(CpuMeter(process.pid), computes_on_cpu=message.info.device.startswith("cpu"))
            self._listener.on_up(message.info)
            return message.info
        how = await process.ended()
        if isinstance(message, Failed):
            log.debug("the engine could not start\n%s", message.details)
            raise EngineFailed(message.error)
        raise EngineFailed(f"the engine's process ended while it loaded: {how}")

    async def _watch_over(self) -> None:
        try:
            while self._process is not None:
                await self._serve(self._process)
                how = await self._process.ended()
                self.state = "restarting" if self.state == "ready" else self.state
                self._bury(how)
                await self._revive()
        except Exception as error:  # a bug; but nobody is left waiting for ever
            log.exception("the engine is given up")
            await self._give_up(f"the engine was given up: {error!r}")

    async def _serve(self, process: EngineProcess) -> None:
        """Hand on what the engine brings until its end."""
        watchdog = asyncio.create_task(self._watch_pulse(process))
        try:
            while (message := await process.receive()) is not None:
                if self._pulse.is_stuck:
                    log.warning("the engine makes steps again, after %.0f s", self._pulse.silence)
                if isinstance(message, Step):
                    self._take(message)
                    self._pulse.heard(message.stats, has_work=bool(self._in_engine))
                elif isinstance(message, Failed):
                    log.error("the engine failed: %s\n%s", message.error, message.details)
        finally:
            watchdog.cancel()

    async def _watch_pulse(self, process: EngineProcess) -> None:
        """Note when the engine is stuck, and kill it when it is taken for hung."""
        patience, pulse = self._limits.step_timeout_s, self._pulse
        while True:
            await asyncio.sleep(min(LOOK_S, patience / 4))
            was_stuck = pulse.is_stuck
            if pulse.look(self._num_tokens_due) and not was_stuck:
                log.warning("the engine (process %d) is stuck: no step for %.0f s", process.pid, pulse.silence)
            if pulse.silence > patience:
                log.error("the engine (process %d) has been silent for %.0f s with work to do", process.pid, patience)
                process.kill()
                return

    def _num_tokens_due(self) -> int:
        """At most, of the step under way: a prompt that waits may fill it."""
        assert self._info is not None
        waits = self._num_waiting or any(not entry.output_ids for entry in self._in_engine.values())
        least = len(self._in_engine) * (1 + self._config.num_draft_tokens)
        return self._info.max_num_batched_tokens if waits else min(least, self._info.max_num_batched_tokens)

    def _bury(self, how: str) -> None:
        """The process is gone: sort out its requests."""
        num_in_flight = len(self._in_engine)
        self._in_engine.clear()
        self._died = time.monotonic()
        self._pulse.reset(None)
        self._listener.on_gone()
        self._num_fruitless += 1
        self.num_restarts += 1
        log.error("the engine died with %d requests in flight: %s; it is started again", num_in_flight, how)
        for entry in self._replay.crashed():
            self.num_condemned += 1
            log.error("a request is failed: it brought the engine down each time it ran alone")
            self._listener.on_failure(entry, "this request brings the engine down")
        if self._replay.num_suspects:
            log.warning("%d requests are replayed one at a time to find the one at fault", self._replay.num_suspects)

    async def _revive(self) -> None:
        """Start the engine again and replay what is in flight, or give it up."""
        num_failed = 0
        while True:
            await asyncio.sleep(self._delay(num_failed))
            try:
                await self._bring_up()
                break
            except (EngineFailed, OSError) as error:  # the system's: no memory, no process to be had
                num_failed += 1
                log.error("the engine could not be started again (%d): %s", num_failed, error)
                if num_failed >= self._limits.max_start_attempts:
                    await self._give_up(f"the engine could not be started again: {error}")
                    return
        self.state = "ready" if self.state == "restarting" else self.state
        entries = self._replay.engine_is_up()
        self.num_replayed += len(entries)
        self._send(entries)

    async def _give_up(self, reason: str) -> None:
        self.state, self.failure = "stopped", reason
        if self._process is not None:
            self._process.kill()
            await self._process.ended()
        self._process = None
        self._listener.on_gone()
        self._fail_all(reason)

    def _delay(self, num_failed: int) -> float:
        """Seconds before the next start: none after an engine that was of use, then doubling."""
        tries = num_failed + self._num_fruitless - 1
        return min(self._limits.max_backoff_s, self._limits.backoff_s * 2.0 ** (tries - 1)) if tries > 0 else 0.0

    # --- requests -------------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        if step.stats is not None:
            self._num_waiting = step.stats.num_waiting
            self._listener.on_step(step.stats)
        for name in step.started:
            if name in self._in_engine:
                self._listener.on_started(self._in_engine[name])
        for wire in step.outputs:
            entry = self._in_engine.get(wire.id)
            if entry is not None:  # else it left, or runs under another name by now
                self._take_output(entry, wire.to_core())

    def _take_output(self, entry: Entry, output: RequestOutput) -> None:
        entry.take(output)
        if output.token_ids:
            self._num_fruitless = 0
        if output.finish_reason is not None:
            self._forget(entry)
            self._send(self._replay.remove(entry))
        elif output.token_ids:
            paused, entries = self._replay.progressed(entry)
            if paused or entries:
                self._recall(paused)
                self._send(entries)
        if output.finish_reason is FinishReason.ERROR:
            self._listener.on_failure(entry, output.error or "the engine failed on this request")
        else:
            self._listener.on_output(entry, output)

    def _send(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        now = time.monotonic()
        for entry in entries:
            assert self._process is not None
            self._pulse.asked()
            submission = entry.submission(next(self._names), now)
            self._in_engine[submission.id] = entry
            self._process.send(submission)

    def _recall(self, entries: Iterable[Entry]) -> None:
        """Take requests out of the engine."""
        names = [entry.engine_id for entry in entries if entry.engine_id in self._in_engine]
        for entry in entries:
            self._forget(entry)
        if names and self._process is not None:
            self._pulse.asked()
            self._process.send(Abort([name for name in names if name is not None]))

    def _forget(self, entry: Entry) -> None:
        if entry.engine_id is not None:
            self._in_engine.pop(entry.engine_id, None)
            entry.engine_id = None

    def _fail_all(self, reason: str) -> None:
        self._in_engine.clear()
        entries, self._replay = self._replay.entries, Replay()  # in the new one nobody makes way for the next
        for entry in entries:
            self._listener.on_failure(entry, reason)
