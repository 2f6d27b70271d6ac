"""`isotoken generate`: continue prompts from the command line or standard input, streamed to standard output."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from .flags import DEFAULT_MODEL, EngineFlags, ModelOption, SamplingFlags

if TYPE_CHECKING:
    from ..engine import GenerationDelta
    from ..engine.local import JobDelta


def generate(
    engine: EngineFlags,
    sampling: SamplingFlags,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="Texts to continue. None: standard input is the prompt."),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    echo: Annotated[bool, typer.Option("--echo", metavar="", help="Print the prompt before what follows it.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="One JSON object a prompt, with token ids and the finish reason.")
    ] = False,
) -> None:
    """Continue one or more prompts and print what follows. Several prompts run as one batch.

    Without sampling flags the answer is greedy: the same prompt gives the same text each time.
    """
    texts = prompts or [_read_prompt()]
    params = sampling.params()
    config = engine.config(model)
    from ..engine import LocalEngine  # noqa: PLC0415  (the engine: only once the arguments are known to be good)
    from ..engine.local import Job  # noqa: PLC0415

    local = LocalEngine(config, progress=sys.stderr.isatty())
    with contextlib.closing(local):
        jobs = [Job(local.text.encode(text), params) for text in texts]
        printer = (
            _JsonPrinter(texts, local.info.backend) if as_json else _TextPrinter(texts if echo else [""] * len(texts))
        )
        with contextlib.closing(printer):
            failed = _in_order(local.generate(jobs), len(jobs), printer)
    if failed:
        raise typer.Exit(1)


def _read_prompt() -> str:
    if sys.stdin.isatty():
        raise typer.BadParameter("give a prompt, or pipe one in", param_hint="PROMPT")
    return sys.stdin.read().removesuffix("\n")  # the last line's own, which the shell added


def _in_order(arriving: Iterator[JobDelta], num_jobs: int, printer: _Printer) -> bool:
    """Print the first unfinished job as it comes and keep what comes of later ones. True if a job failed."""
    kept: list[list[JobDelta]] = [[] for _ in range(num_jobs)]
    failed = False
    current = 0
    for arrived in arriving:
        kept[arrived.job].append(arrived)
        while current < num_jobs and kept[current]:
            job, delta, error = kept[current].pop(0)
            printer.add(job, delta)
            if error is not None:
                failed = True
                typer.echo(f"isotoken: prompt {job + 1} failed: {error}", err=True)
            current += delta.finish_reason is not None
    return failed


class _Printer(Protocol):
    def add(self, job: int, delta: GenerationDelta) -> None: ...
    def close(self) -> None: ...


class _TextPrinter:
    def __init__(self, starts: list[str]) -> None:
        self._starts = starts
        self._last = "\n"

    def add(self, job: int, delta: GenerationDelta) -> None:
        text = self._starts[job] + delta.text + ("" if delta.finish_reason is None else "\n")
        print(text, end="", flush=True)
        self._starts[job] = ""
        self._last = text[-1:] or self._last

    def close(self) -> None:
        """End a line that was left off, so that an error does not stick to it."""
        if self._last != "\n":
            print(flush=True)


class _JsonPrinter:
    def __init__(self, prompts: list[str], backend: str) -> None:
        self._prompts, self._backend = prompts, backend
        self._text, self._token_ids = "", list[int]()

    def add(self, job: int, delta: GenerationDelta) -> None:
        self._text += delta.text
        self._token_ids += delta.token_ids
        if delta.finish_reason is None:
            return
        line = {
            "prompt": self._prompts[job],
            "text": self._text,
            "token_ids": self._token_ids,
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
            "backend": self._backend,
        }
        print(json.dumps(line, ensure_ascii=False), flush=True)
        self._text, self._token_ids = "", []

    def close(self) -> None:
        """Nothing is printed before it is whole."""
