"""The four workloads that every engine is measured on, and how a machine is kept honest while it is measured."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .make_model import VOCAB_SIZE

WORKLOADS = ("W1", "W2", "W3", "W4")


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
    def num_prompt_tokens(self) -> int:
        """Prompt tokens in all."""
        return sum(len(task.prompt) for task in self.tasks)

    @property
    def num_output_tokens(self) -> int:
        """Output tokens in all."""
        return sum(task.num_tokens for task in self.tasks)


def make_workload(name: str, repetition: int) -> Workload:
    """Return a workload with prompts of its own for each repetition, so that no prefix cache helps across them.

    W1: one stream, 128 in, 128 out. W2: 32 requests, 128 in, 64 out. W3: 64 ragged requests, 16..256 in, 8..128 out
    (the same lengths in every repetition), all at once. W4: 32 requests that share 512 tokens, 16 more in, 16 out.
    """
    rng = random.Random(f"{name}/{repetition}")
    if name == "W1":
        return Workload(name, [Task(_ids(rng, 128), 128)], 1)
    if name == "W2":
        return Workload(name, [Task(_ids(rng, 128), 64) for _ in range(32)], 32)
    if name == "W3":
        lengths = random.Random("W3 lengths")
        shapes = [(lengths.randint(16, 256), lengths.randint(8, 128)) for _ in range(64)]
        return Workload(name, [Task(_ids(rng, num_in), num_out) for num_in, num_out in shapes], 64)
    if name == "W4":
        shared = _ids(rng, 512)
        return Workload(name, [Task(shared + _ids(rng, 16), 16) for _ in range(32)], 32)
    raise ValueError(f"unknown workload {name!r}: expected one of {', '.join(WORKLOADS)}")


def small(workload: Workload, share: int) -> Workload:
    """Return every share-th request with a share of its tokens, for smoke tests."""
    tasks = [
        Task(task.prompt[: max(len(task.prompt) // share, 1)], max(task.num_tokens // share, 2))
        for task in workload.tasks
    ]
    return Workload(workload.name, tasks[::share], workload.concurrency)


def static_batches(tasks: list[Task], size: int) -> Iterator[list[Task]]:
    """Yield the tasks in arrival order, `size` at a time: what a user of an API without continuous batching does."""
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]


def _ids(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(3, VOCAB_SIZE) for _ in range(count)]
