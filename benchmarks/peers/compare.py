"""isotoken and a peer in turns on the same model, workloads, threads and precision; tokens are checked first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from isotoken.api.bench.checks import MOST_BELOW, Judge
from isotoken.api.bench.engines import Isotoken, Run, speed
from isotoken.api.bench.machine import Others
from isotoken.api.bench.truth import Truth, Truths
from isotoken.api.bench.workloads import LONGEST, Workload, make_workload, small
from isotoken.core.checkpoint import Checkpoint
from isotoken.plugins.manager import Plugins

from .process import Peer, Way

Tell = Callable[[str], None]

OURS: dict[bool, dict[str, tuple[str, str | None]]] = {
    False: {
        "float32": ("float32", None),
        "bfloat16": ("bfloat16", None),
        "int8": ("float32", "int8"),
        "int4": ("float32", "int4"),
    },
    True: {
        "float32": ("float32", None),
        "bfloat16": ("bfloat16", None),
        "int8": ("bfloat16", "w8a8"),
        "int4": ("bfloat16", "w4a8"),
    },
}
"""Whether the backend is `native` -> width of the weights -> isotoken's dtype and quantisation of that width."""


@dataclass(frozen=True, slots=True)
class Round:
    """Both, one right after the other, on the same fresh prompts."""

    ours: float  # tokens a second
    theirs: float
    cpu_seconds: tuple[float, float]  # of all threads: ours, theirs
    others: float  # CPUs that other processes kept busy meanwhile

    @property
    def ratio(self) -> float:
        """Above 1: isotoken is faster."""
        return self.ours / self.theirs


@dataclass(frozen=True, slots=True)
class Comparison:
    """One workload in one precision."""

    workload: str
    precision: str
    ours: str  # isotoken's backend, and what is not its default
    peer: str
    way: str  # the peer's fastest
    rounds: list[Round]
    first_tokens: tuple[float, float]  # median seconds to a task's first token, ours and theirs
    checks: tuple[str, str]  # what became of the tokens, ours and theirs
    tried: dict[str, float] = field(default_factory=dict)  # the peer's ways and their tokens a second, warm

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return statistics.median(each.ratio for each in self.rounds)


@dataclass(slots=True, kw_only=True)
class Pair:
    """Both engines in one precision, loaded."""

    ours: Isotoken
    theirs: Peer
    judge: Judge
    precision: str
    label: str  # what isotoken's side is called
    ends: frozenset[int]  # tokens that end a sequence
    share: int = 1
    tell: Tell = lambda _: None

    def compare(self, name: str, rounds: int, spinnings: Sequence[str], words: str = "") -> Comparison:
        """Warm up, choose the peer's fastest way, check the tokens of both, then measure round by round."""
        self.tell(f"{name} {self.precision}: looking for the peer's fastest way")
        tried = self._try_ways(self._workload(name, 0), spinnings, words)
        checks = self._check(self._workload(name, 0), sorted(tried, key=lambda way: -tried[way]))
        found: list[Round] = []
        firsts: list[tuple[float, float]] = []
        for index in range(1, rounds + 1):
            workload = self._workload(name, index)
            with Others(*self.theirs.pids) as others:
                theirs, ours, cpu = self._both(workload, ours_first=index % 2 == 0)
            found.append(Round(speed(workload, ours), speed(workload, theirs), cpu, others.cpus))
            firsts.append((statistics.median(ours.first_tokens()), statistics.median(theirs.first_tokens())))
            self.tell(f"{name} {self.precision}: round {index}: {found[-1].ratio:.2f}, others {others.cpus:.1f} CPUs")
        return Comparison(
            workload=name,
            precision=self.precision,
            ours=self.label,
            peer=self.theirs.name,
            way=str(self.theirs.way),
            rounds=found,
            first_tokens=(statistics.median(a for a, _ in firsts), statistics.median(b for _, b in firsts)),
            checks=checks,
            tried={str(way): rate for way, rate in tried.items()},
        )

    def _workload(self, name: str, repetition: int) -> Workload:
        workload = make_workload(name, repetition)
        return workload if self.share == 1 else small(workload, self.share)

    def _try_ways(self, workload: Workload, spinnings: Sequence[str], words: str) -> dict[Way, float]:
        """Run every way, then the variations of those near the fastest; tokens a second of each."""
        ways = [way for way in self.theirs.ways(workload) if words in str(way)]
        if not ways:
            raise ValueError(f"{self.theirs.name} has no way to run this whose name holds {words!r}")
        tried = {way: self._rate(workload, way) for way in ways}
        best = max(tried.values())
        for near in [way for way, rate in tried.items() if rate >= 0.8 * best]:
            for way in self.theirs.variations(near, spinnings):
                tried[way] = max(tried.get(way, 0.0), self._rate(workload, way))
        return tried

    def _rate(self, workload: Workload, way: Way) -> float:
        self.theirs.way = way
        return speed(workload, self.theirs.run(workload))

    def _check(self, workload: Workload, ways: Sequence[Way]) -> tuple[str, str]:
        """Judge the tokens of both, and choose the first of the peer's ways whose tokens are right.

        Raises AssertionError where rounding cannot explain isotoken's tokens, or those of any way.
        """
        self.ours.run(workload, salt=b"warm-up")
        ours = self.ours.run(workload, salt=b"check")
        check = self.judge.check(self.ours, workload, ours)
        assert check.ok, f"isotoken, {workload.name} {self.precision}: {check.text}"
        for way in ways:
            self.theirs.way = way
            verdict = self.judge.judge(*self._without_ends(workload, ours, self.theirs.run(workload)), "float32")
            # Other widths are not defined alike, and some round their K/V too: there tokens must only make sense.
            if verdict.ok if self.precision == "float32" else verdict.share_below <= MOST_BELOW:
                unlike = (verdict.wrong + verdict.differing) / verdict.positions
                return (
                    check.text,
                    f"{unlike:.1%} of {verdict.positions} tokens unlike float32, {verdict.shortfall:.3f} below",
                )
            self.tell(f"{workload.name} {self.precision}: wrong tokens, so left out: {way}: {verdict}")
        raise AssertionError(
            f"{self.theirs.name}, {workload.name}: every way gives tokens that rounding cannot explain"
        )

    def _without_ends(self, workload: Workload, ours: Run, theirs: Run) -> tuple[Workload, Run]:
        """The tasks in which no token ends a sequence, and the peer's tokens for them.

        The peer can only be told to go on by forbidding it such tokens, so it rightly has others there.
        """
        ends = self.ends
        kept = [index for index, tokens in enumerate(ours.tokens) if not ends.intersection(tokens)]
        run = replace(theirs, tokens=[theirs.tokens[index] for index in kept])
        return replace(workload, tasks=[workload.tasks[index] for index in kept]), run

    def _both(self, workload: Workload, *, ours_first: bool) -> tuple[Run, Run, tuple[float, float]]:
        """The peer's run and ours, and the CPU seconds of ours and the peer's."""
        salt = f"{workload.name} {id(workload)}".encode()  # no prefix cache knows the prompts
        theirs = None if ours_first else self.theirs.run(workload)
        start = time.process_time()
        ours = self.ours.run(workload, salt=salt)
        cpu_seconds = time.process_time() - start
        theirs = theirs or self.theirs.run(workload)
        return theirs, ours, (cpu_seconds, self.theirs.cpu_seconds)


def load_pair(
    model: Path,
    theirs: Peer,
    precision: str,
    *,
    backend: str,
    threads: int,
    share: int = 1,
    options: Mapping[str, str] | None = None,
    tell: Tell = lambda _: None,
) -> Pair:
    """Load isotoken beside a peer, and the judge. Raises what loading raises."""
    plugins = Plugins.load()
    dtype, quantization = OURS[backend == "native"][precision]
    settings: dict[str, Any] = {"quantization": quantization, "options": dict(options or {})}
    settings |= {"num_threads": threads, "max_model_len": LONGEST + 16}
    ours = Isotoken(model, dtype=dtype, backend=backend, plugins=plugins, settings=settings)
    words = [ours.backend, dtype, *filter(None, [quantization]), *(f"{k} {v}" for k, v in (options or {}).items())]
    truth = partial(Truth, model, plugins, LONGEST + 16)
    return Pair(
        ours=ours,
        theirs=theirs,
        judge=Judge(truth(), Truths(truth, tell)),
        precision=precision,
        label=", ".join(words),
        ends=Checkpoint.open(model).eos_token_ids,
        share=share,
        tell=tell,
    )


def close_pair(pair: Pair) -> None:
    """Give everything back."""
    pair.theirs.close()
    pair.ours.close()
