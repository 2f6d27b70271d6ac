"""Vetting: grammars of strangers are tried out in a process that may be killed before any engine sees them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import sys
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

import msgspec

from ..errors import NotOffered, Overloaded, ParameterError
from .outputs import StructuredOutputs
from .settings import StructuredSettings
from .trials import HEADER_BYTES, Setup, Trial, Verdict, pack

if TYPE_CHECKING:
    from ..engine.types import EngineInfo

_WARM_UP = '{"type":"choice","choices":["a"]}'
_RETRY_AFTER_S = 2.0
_GONE = Verdict(-1, "the process that tries out grammars ended", final=False)


class Vetting:
    """Verdicts on grammars for one model. The process starts with the first grammar, and again should it end."""

    def __init__(self, info: EngineInfo) -> None:
        self.settings = StructuredSettings()
        self._info = info
        self._verdicts: OrderedDict[bytes, str] = OrderedDict()  # by a digest of the grammar: what is wrong with it
        self._whose: Counter[str] = Counter()  # trials under way
        self._trials: dict[bytes, asyncio.Task[Verdict]] = {}
        self._answers: dict[int, asyncio.Future[Verdict]] = {}
        self._ids = itertools.count()
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._is_closed = False

    async def check(self, outputs: StructuredOutputs, whose: str = "") -> None:
        """Raise ParameterError for a grammar that cannot be used, NotOffered where none can, and Overloaded.

        `whose`: nobody may have many trials under way, and so keep others waiting.
        """
        if self._info.no_grammars:
            raise NotOffered(outputs.name, "...", self._info.no_grammars)
        digest = hashlib.sha256(outputs.text.encode()).digest()
        error = self._verdicts.get(digest)
        if error is None:
            error = await self._try(digest, outputs.text, whose)
        else:
            self._verdicts.move_to_end(digest)
        if error:
            refusal = ParameterError(outputs.name, "", "a grammar that can be compiled")
            refusal.args = (f"{outputs.name} is not allowed: {error}",)
            raise refusal

    async def close(self) -> None:
        """End the process. Trials under way are given up."""
        self._is_closed = True
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _try(self, digest: bytes, grammar: str, whose: str) -> str:
        """Try out a grammar once for all who ask for it at the same time, and keep the verdict."""
        trial = self._trials.get(digest)
        if trial is None:
            settings = self.settings
            if len(self._trials) >= settings.max_waiting or self._whose[whose] >= settings.max_waiting_each:
                raise Overloaded("too many new grammars wait to be compiled", _RETRY_AFTER_S)
            trial = self._trials[digest] = asyncio.create_task(self._ask(grammar))
            self._whose[whose] += 1
            trial.add_done_callback(lambda task: self._keep(digest, task, whose))
        verdict = await asyncio.shield(trial)
        if verdict is _GONE:
            raise Overloaded(_GONE.error, _RETRY_AFTER_S)
        return verdict.error

    def _keep(self, digest: bytes, trial: asyncio.Task[Verdict], whose: str) -> None:
        del self._trials[digest]
        self._whose[whose] -= 1
        if not self._whose[whose]:
            del self._whose[whose]
        if trial.cancelled() or trial.exception() is not None or not trial.result().final:
            return
        self._verdicts[digest] = trial.result().error
        if len(self._verdicts) > self.settings.max_cached:
            self._verdicts.popitem(last=False)

    async def _ask(self, grammar: str) -> Verdict:
        """Have the process try it out; once more, should it end meanwhile for no fault of this grammar."""
        for _ in range(2):
            async with self._starting:
                if self._is_closed:
                    return _GONE
                process = self._process
                if process is None or process.returncode is not None:
                    process = self._process = await self._start()
            assert process.stdin is not None
            trial_id = next(self._ids)
            answer = self._answers[trial_id] = asyncio.get_running_loop().create_future()
            with contextlib.suppress(OSError):
                process.stdin.write(pack(Trial(trial_id, grammar)))
                await process.stdin.drain()
            verdict: Verdict = await answer
            if verdict is not _GONE:
                return verdict
        return _GONE

    async def _start(self) -> asyncio.subprocess.Process:
        settings, info = self.settings, self._info
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isotoken.api.structured.zygote"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
        )
        setup = Setup(
            model=info.model,
            compiler=info.settings.get("grammars", "llguidance"),
            vocab_size=info.vocab_size,
            eos_token_ids=info.eos_token_ids,
            cpu_s=settings.compile_cpu_s,
            timeout_s=settings.compile_timeout_s,
            memory_mb=settings.compile_memory_mb,
            warm_up=_WARM_UP,
        )
        assert process.stdin is not None
        process.stdin.write(pack(setup))
        self._reader = asyncio.create_task(self._read(process))
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out verdicts until the process ends."""
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                header = await process.stdout.readexactly(HEADER_BYTES)
                body = await process.stdout.readexactly(int.from_bytes(header, "big"))
                verdict = msgspec.msgpack.decode(body, type=Verdict)
                answer = self._answers.pop(verdict.id, None)
                if answer is not None and not answer.done():
                    answer.set_result(verdict)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_result(_GONE)
