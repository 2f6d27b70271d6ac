"""LocalEngine: the engine in a thread of the calling process, for offline use."""

from __future__ import annotations

import itertools
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ...core.constraints import GrammarCompiler
from ...core.types import DecodeParams, FinishReason, Request, RequestOutput
from ...plugins.build import EngineConfig, build_engine
from ...plugins.manager import Plugins
from ..choice import Choice
from ..errors import EngineFailed, ParameterError
from ..structured.tokens import token_table
from ..text import SamplingParams, TextModel
from .prepare import prepare
from .progress import LoadProgress
from .types import EngineInfo, GenerationDelta
from .worker import engine_info

if TYPE_CHECKING:
    from ...core.engine import Engine

CHECK_S = 1.0  # between looks at whether the thread still lives


class Job(NamedTuple):
    """One prompt and how to continue it."""

    prompt_ids: list[int]
    params: SamplingParams


class JobDelta(NamedTuple):
    """What is new in one choice of the job at this index; `error` says why it failed, where it did."""

    job: int
    delta: GenerationDelta
    error: str | None = None


class LocalEngine:
    """Runs an Engine in a thread of its own. Several threads may generate at the same time."""

    def __init__(self, config: EngineConfig, *, plugins: Plugins | None = None, progress: bool = False) -> None:
        """Load the model; `progress` shows it on stderr. Raises what build_engine and TextModel.load raise."""
        self.text = TextModel.load(config.model)
        self._thread = _EngineThread(config, plugins or Plugins.load(), LoadProgress(enabled=progress))
        self._thread.start()
        self.info: EngineInfo = self._thread.ready.result()
        self._close = weakref.finalize(self, self._thread.stop)  # at the latest when the interpreter exits

    def close(self) -> None:
        """End the thread and give back the engine's memory. Harmless when repeated."""
        self._close()

    def generate(self, jobs: Sequence[Job]) -> Iterator[JobDelta]:
        """Return an iterator over what comes of all jobs, as it comes. Closing it aborts what is left.

        Raises ParameterError or ContextLengthError at once; the iterator raises EngineFailed if the engine ends.
        """
        resolved = [prepare(job.prompt_ids, job.params, self.info, self.text) for job in jobs]
        self._compile({params.grammar: job.params for job, (params, *_) in zip(jobs, resolved, strict=True)})
        return self._run(jobs, resolved)

    def _compile(self, by_grammar: Mapping[str | None, SamplingParams]) -> None:
        """Try out grammars: what is wrong with one is told before anything runs."""
        for grammar, params in by_grammar.items():
            if grammar is None or self._thread.grammars is None:
                continue
            try:
                self._thread.grammars.compile(grammar)
            except ValueError as error:
                raise ParameterError("structured_outputs", params.structured_outputs, str(error)) from error

    def _run(self, jobs: Sequence[Job], resolved: Sequence[Sequence[DecodeParams]]) -> Iterator[JobDelta]:
        sink: Sink = queue.SimpleQueue()
        choices: dict[str, _Choice] = {}
        for i, (job, each) in enumerate(zip(jobs, resolved, strict=True)):
            for index, params in enumerate(each):
                name = self._thread.submit(job.prompt_ids, params, sink)
                choices[name] = _Choice(i, index, Choice(self.text, job.params, self.info.eos_token_ids))
        try:
            while choices:
                for output in self._thread.wait(sink):
                    choice = choices.get(output.request_id)
                    if choice is None:  # a stop string had ended it
                        continue
                    delta = choice.feed(output)
                    if delta.finish_reason is not None:
                        del choices[output.request_id]
                        if output.finish_reason is None:
                            self._thread.abort(output.request_id)
                    yield JobDelta(choice.job, delta, output.error)
        finally:
            for name in choices:
                self._thread.abort(name)


@dataclass(frozen=True, slots=True)
class _Choice:
    job: int
    index: int
    text: Choice

    def feed(self, output: RequestOutput) -> GenerationDelta:
        delta = self.text.feed(output)
        return GenerationDelta(
            index=self.index,
            text=delta.text,
            token_ids=delta.token_ids,
            logprobs=delta.logprobs,
            finish_reason=None if delta.finish_reason is None else delta.finish_reason.value,
            stop_reason=delta.stop_reason,
            prompt_logprobs=output.prompt_logprobs,
            num_cached_tokens=output.num_cached_tokens,
        )


Sink = queue.SimpleQueue[list[RequestOutput]]


class _Submission(NamedTuple):
    request: Request
    sink: Sink


class _EngineThread(threading.Thread):
    """Builds an engine and steps it, all in one thread, since runners are bound to theirs."""

    def __init__(self, config: EngineConfig, plugins: Plugins, progress: LoadProgress) -> None:
        super().__init__(name="isotoken-engine", daemon=True)
        self.ready: Future[EngineInfo] = Future()
        self.grammars: GrammarCompiler | None = None  # once it is ready
        self._config = config
        self._plugins = plugins
        self._progress = progress
        self._inbox: queue.SimpleQueue[_Submission | str | None] = queue.SimpleQueue()  # str: abort; None: stop
        self._sinks: dict[str, Sink] = {}
        self._names = (str(n) for n in itertools.count())
        self._failure: Exception | None = None

    # --- called by others -----------------------------------------------------------------------

    def submit(self, prompt_ids: list[int], params: DecodeParams, sink: Sink) -> str:
        """Queue a request whose outputs go to `sink`, and return its name."""
        name = next(self._names)
        request = Request(id=name, token_ids=list(prompt_ids), num_prompt_tokens=len(prompt_ids), params=params)
        self._inbox.put(_Submission(request, sink))
        return name

    def abort(self, name: str) -> None:
        """Drop a request."""
        self._inbox.put(name)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._inbox.put(None)
        self.join()

    def wait(self, sink: Sink) -> list[RequestOutput]:
        """Return the next outputs. Raises EngineFailed when there will be none."""
        while True:
            try:
                return sink.get(timeout=CHECK_S)
            except queue.Empty:
                if not self.is_alive() and sink.empty():
                    raise EngineFailed(f"the engine has ended: {self._why()}") from self._failure

    def _why(self) -> str:
        if self._failure is None:
            return "it was closed"
        return f"{type(self._failure).__name__}: {self._failure}".removesuffix(": ")

    # --- the thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """Build, say so, and serve."""
        try:
            with self._progress as progress:
                built = build_engine(
                    self._config,
                    self._plugins,
                    self._publish,
                    on_open=progress.on_open,
                    on_read=progress.on_read,
                    load_tokens=lambda: token_table(TextModel.load(self._config.model)),
                )
            self.grammars = built.grammars
            info = engine_info(self._config, built)
        except BaseException as error:
            self.ready.set_exception(error)
            return
        self.ready.set_result(info)
        try:
            self._serve(built.engine)
        except Exception as error:
            self._failure = error
        finally:
            built.engine.close()

    def _serve(self, engine: Engine) -> None:
        while True:
            while not engine.has_work or not self._inbox.empty():
                item = self._inbox.get()
                if item is None:
                    return
                self._take(engine, item)
            engine.step()

    def _take(self, engine: Engine, item: _Submission | str) -> None:
        if isinstance(item, str):
            engine.abort(item)
            self._sinks.pop(item, None)
            return
        name = item.request.id
        try:
            self._sinks[name] = item.sink
            engine.add(item.request)
        except ValueError as error:
            self._publish(
                [RequestOutput(request_id=name, token_ids=[], finish_reason=FinishReason.ERROR, error=str(error))]
            )

    def _publish(self, outputs: list[RequestOutput]) -> None:
        """Hand each sink what is its own, all of a step at once."""
        by_sink: dict[int, tuple[Sink, list[RequestOutput]]] = {}
        for output in outputs:
            sink = self._sinks.get(output.request_id)
            if sink is not None:
                by_sink.setdefault(id(sink), (sink, []))[1].append(output)
            if output.finish_reason is not None:
                self._sinks.pop(output.request_id, None)
        for sink, own in by_sink.values():
            sink.put(own)
