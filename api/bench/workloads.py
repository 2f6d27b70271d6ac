"""What every engine is measured on: requests with fixed prompts and lengths, the same for all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

VOCAB_SIZE = 32000
"""Of the random models (see models.py)."""

WORKLOADS = ("W1", "W2", "W3", "W4")
PREFILL = "prefill"
ALL_WORKLOADS = (*WORKLOADS, PREFILL)

DESCRIPTIONS = {
    "W1": "one stream: 128 tokens in, 128 out",
    "W2": "32 requests at once: 128 in, 64 out",
    "W3": "64 ragged requests at once: 16 to 256 in, 8 to 128 out",
    "W4": "32 requests at once that share 512 tokens: 16 more in, 16 out",
    PREFILL: "4 prompts of 512 tokens, 1 out",
}

Figure = Literal["decode", "output", "prompt"]

LONGEST = 544
"""Tokens that the longest request of any workload has."""


@dataclass(frozen=True, slots=True)
class Task:
    """One request: a prompt, and how many tokens to generate whatever they are."""

    prompt: list[int]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests that arrive together, of which up to `concurrency` run at once."""

    name: str
    tasks: list[Task]
    concurrency: int

    @property
    def figure(self) -> Figure:
        """The tokens a second that it is about: a single stream's after its first, all output, or the prompts'."""
        return {"W1": "decode", PREFILL: "prompt"}.get(self.name, "output")  # type: ignore[return-value]

    @property
    def num_prompt_tokens(self) -> int:
        """Prompt tokens in all."""
        return sum(len(task.prompt) for task in self.tasks)

    @property
    def num_output_tokens(self) -> int:
        """Output tokens in all."""
        return sum(task.num_tokens for task in self.tasks)

    @property
    def num_distinct_prompt_tokens(self) -> int:
        """Prompt tokens with the prefix that all tasks share counted once."""
        prompts = [task.prompt for task in self.tasks]
        shared = 0
        for column in zip(*prompts, strict=False):
            if len(set(column)) > 1 or len(prompts) == 1:
                break
            shared += 1
        return shared + sum(len(prompt) - shared for prompt in prompts)


def make_workload(name: str, repetition: int = 0, vocab_size: int = VOCAB_SIZE) -> Workload:
    """Return a workload (see DESCRIPTIONS) with prompts of its own for each repetition.

    Prompts are random token ids. W3 has the same lengths in every repetition.
    """
    rng = random.Random(f"{name}/{repetition}")

    def ids(count: int) -> list[int]:
        return [rng.randrange(3, vocab_size) for _ in range(count)]

    if name == "W1":
        return Workload(name, [Task(ids(128), 128)], 1)
    if name == "W2":
        return Workload(name, [Task(ids(128), 64) for _ in range(32)], 32)
    if name == "W3":
        return Workload(name, [Task(ids(num_in), num_out) for num_in, num_out in _ragged_lengths(64)], 64)
    if name == "W4":
        shared = ids(512)
        return Workload(name, [Task(shared + ids(16), 16) for _ in range(32)], 32)
    if name == PREFILL:
        return Workload(name, [Task(ids(512), 1) for _ in range(4)], 4)
    raise ValueError(f"unknown workload {name!r}: expected one of {', '.join(ALL_WORKLOADS)}")


def make_streams(concurrency: int, vocab_size: int = VOCAB_SIZE, per_stream: int = 2, least: int = 8) -> Workload:
    """Return ragged requests for `concurrency` streams, each of which asks anew when it has its answer."""
    rng = random.Random("streams")  # fewer streams ask for the first of the same
    lengths = _ragged_lengths(max(per_stream * concurrency, least))
    tasks = [Task([rng.randrange(3, vocab_size) for _ in range(num_in)], num_out) for num_in, num_out in lengths]
    return Workload(f"{concurrency} stream{'' if concurrency == 1 else 's'}", tasks, concurrency)


def _ragged_lengths(count: int) -> list[tuple[int, int]]:
    lengths = random.Random("W3 lengths")
    return [(lengths.randint(16, 256), lengths.randint(8, 128)) for _ in range(count)]


def shorter(workload: Workload, share: int) -> Workload:
    """Return the same requests with a share of their tokens."""
    tasks = [
        Task(task.prompt[: max(len(task.prompt) // share, 1)], max(task.num_tokens // share, min(task.num_tokens, 2)))
        for task in workload.tasks
    ]
    return replace(workload, tasks=tasks)


def small(workload: Workload, share: int) -> Workload:
    """Return every share-th request with a share of its tokens, for a quick look."""
    workload = shorter(workload, share)
    return replace(workload, tasks=workload.tasks[::share])


def static_batches(tasks: list[Task], size: int) -> Iterator[list[Task]]:
    """Yield the tasks in arrival order, `size` at a time: what a user of an API without continuous batching does."""
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]
