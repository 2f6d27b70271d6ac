"""What is measured: isotoken's engine on any backend and scheduler, and whatever else can run a workload."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...core.types import DecodeParams, Request, RequestOutput
from ...plugins.build import EngineConfig, build_engine
from ...plugins.manager import Plugins
from .workloads import LONGEST, Task, Workload


@dataclass(slots=True)
class Run:
    """One workload, once. Times are in seconds."""

    seconds: float
    tokens: list[list[int]]  # of each task, in order
    token_times: list[list[float]]  # since the start, at which each token came out; empty where not known
    starts: list[float] = field(default_factory=list)  # at which each task was submitted; empty: all at 0

    @property
    def output_rate(self) -> float:
        """Output tokens a second, prefill included."""
        return sum(map(len, self.tokens)) / self.seconds

    @property
    def decode_rate(self) -> float:
        """Tokens a second after the first one, of a single stream."""
        times = self.token_times[0]
        return (len(times) - 1) / (times[-1] - times[0])

    @property
    def first_token(self) -> float:
        """Seconds to the first token of a single stream."""
        return self.token_times[0][0]

    def first_tokens(self) -> list[float]:
        """Seconds from each task's submission to its first token."""
        starts = self.starts or [0.0] * len(self.token_times)
        return [times[0] - start for times, start in zip(self.token_times, starts, strict=True)]

    def gaps(self) -> list[float]:
        """Seconds between a task's tokens. Tokens that came together share the wait for them."""
        return [gap for times in self.token_times for gap in _gaps(times)]


def _gaps(times: list[float]) -> Iterator[float]:
    previous, at = times[0], times.count(times[0])
    while at < len(times):
        together = times.count(times[at])
        yield from [(times[at] - previous) / together] * together
        previous = times[at]
        at += together


def token_hash(run: Run) -> str:
    """A short hash of all tokens."""
    return hashlib.sha256(repr(run.tokens).encode()).hexdigest()[:16]


def speed(workload: Workload, run: Run) -> float:
    """Tokens a second in the figure that the workload is about."""
    if workload.figure == "decode":
        return run.decode_rate
    return run.output_rate if workload.figure == "output" else workload.num_prompt_tokens / run.seconds


class Subject(Protocol):
    """Something that can run a workload."""

    name: str

    def run(self, workload: Workload) -> Run:
        """Generate all tokens, greedily, ends of sequence ignored."""
        ...


@dataclass(slots=True)
class Isotoken:
    """The engine as it is served: scheduler, cache, sampler, published outputs; no text and no HTTP.

    `settings` are more fields of EngineConfig. Raises what build_engine raises.
    """

    folder: Path
    dtype: str = "bfloat16"
    backend: str = "torch"
    device: str = "cpu"
    scheduler: str = "continuous"
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    plugins: Plugins | None = None
    _built: Any = None
    _outputs: list[tuple[float, list[RequestOutput]]] = field(default_factory=list)
    _starts: list[float] = field(default_factory=list)
    _waiting: Iterator[Request] = field(default_factory=lambda: iter(()))

    def __post_init__(self) -> None:
        settings = {"max_num_seqs": 64, "max_model_len": LONGEST + 16} | self.settings
        config = EngineConfig(
            model=str(self.folder),
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
            scheduler=self.scheduler,
            **settings,
        )
        self._built = build_engine(config, self.plugins or Plugins.load(), self._publish)
        self.backend, self.device, self.dtype = self._built.backend, self._built.device, self._built.dtype
        self.name = self.name or f"isotoken {self.backend} {self.dtype}"

    def _publish(self, outputs: list[RequestOutput]) -> None:
        self._outputs.append((time.perf_counter(), outputs))
        for output in outputs:
            if output.finish_reason is not None:
                self._submit()

    def _submit(self) -> None:
        request = next(self._waiting, None)
        if request is not None:
            self._starts.append(time.perf_counter())
            self._built.engine.add(request)

    def run(self, workload: Workload, *, salt: bytes = b"", in_flight: int = 0) -> Run:
        """Submit every task at once, or `in_flight` of them and the others as those end, and step until all are done.

        Runs with different salts share nothing through the prefix cache.
        """
        self._outputs.clear()
        self._starts.clear()
        self._waiting = iter([_request(str(index), task, salt) for index, task in enumerate(workload.tasks)])
        start = time.perf_counter()
        for _ in range(in_flight or len(workload.tasks)):
            self._submit()
        self._built.engine.run()
        seconds = time.perf_counter() - start
        tokens: list[list[int]] = [[] for _ in workload.tasks]
        times: list[list[float]] = [[] for _ in workload.tasks]
        for at, outputs in self._outputs:
            for output in outputs:
                if output.error:
                    raise RuntimeError(output.error)
                tokens[int(output.request_id)] += output.token_ids
                times[int(output.request_id)] += [at - start] * len(output.token_ids)
        return Run(seconds, tokens, times, [at - start for at in self._starts])

    def run_alone(self, task: Task) -> tuple[list[int], list[float]]:
        """Run one task with nobody beside it: its tokens, and the log-probability between each and the second best."""
        self._outputs.clear()
        self._waiting = iter(())
        self._built.engine.add(_request("0", task, b"alone", num_logprobs=2))
        self._built.engine.run()
        outputs = [output for _, published in self._outputs for output in published]
        top = [entry.top for output in outputs for entry in output.logprobs or ()]
        return [token for output in outputs for token in output.token_ids], [two[0][1] - two[1][1] for two in top]

    def close(self) -> None:
        """Give the memory back."""
        self._built.engine.close()


def _request(name: str, task: Task, salt: bytes, num_logprobs: int | None = None) -> Request:
    params = DecodeParams(max_tokens=task.num_tokens, temperature=0.0, ignore_eos=True, num_logprobs=num_logprobs)
    return Request(
        id=name, token_ids=list(task.prompt), num_prompt_tokens=len(task.prompt), params=params, cache_salt=salt
    )
