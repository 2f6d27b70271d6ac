"""What is measured: isotoken's engine on any backend and scheduler, and transformers' generate, behind one method."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from isotoken.core.types import DecodeParams, Request, RequestOutput
from isotoken.plugins.build import EngineConfig, build_engine
from isotoken.plugins.manager import Plugins

from .workloads import Task, Workload, static_batches


@dataclass(slots=True)
class Run:
    """One workload, once."""

    seconds: float
    tokens: list[list[int]]  # of each task, in order
    token_times: list[list[float]]  # seconds since the start at which each token came out; empty where not known

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


def speed(workload: Workload, run: Run) -> float:
    """The figure that a workload is about: the decode rate of a single stream, else the output rate."""
    return run.decode_rate if workload.name == "W1" else run.output_rate


class Subject(Protocol):
    """Something that can run a workload."""

    name: str

    def run(self, workload: Workload) -> Run:
        """Generate all tokens, greedily, ends of sequence ignored."""
        ...


@dataclass(slots=True)
class Isotoken:
    """The engine as it is served: scheduler, paged cache, sampler, published outputs; no text and no HTTP."""

    folder: Path
    dtype: str = "bfloat16"
    backend: str = "torch"
    device: str = "cpu"
    scheduler: str = "continuous"
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    _engine: Any = None
    _outputs: list[tuple[float, list[RequestOutput]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or f"isotoken {self.backend} {self.dtype}"
        settings = {"max_num_seqs": 32, "max_model_len": 1024} | self.settings
        config = EngineConfig(
            model=str(self.folder),
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
            scheduler=self.scheduler,
            **settings,
        )
        self._engine = build_engine(config, Plugins.load(), self._publish).engine

    def _publish(self, outputs: list[RequestOutput]) -> None:
        self._outputs.append((time.perf_counter(), outputs))

    def run(self, workload: Workload) -> Run:
        """Submit every task at once and step until all are done."""
        self._outputs.clear()
        start = time.perf_counter()
        for index, task in enumerate(workload.tasks):
            self._engine.add(_request(str(index), task))
        self._engine.run()
        seconds = time.perf_counter() - start
        tokens: list[list[int]] = [[] for _ in workload.tasks]
        times: list[list[float]] = [[] for _ in workload.tasks]
        for at, outputs in self._outputs:
            for output in outputs:
                if output.error:
                    raise RuntimeError(output.error)
                tokens[int(output.request_id)] += output.token_ids
                times[int(output.request_id)] += [at - start] * len(output.token_ids)
        return Run(seconds, tokens, times)

    def close(self) -> None:
        """Give the memory back."""
        self._engine.close()


def _request(name: str, task: Task) -> Request:
    params = DecodeParams(max_tokens=task.num_tokens, temperature=0.0, ignore_eos=True)
    return Request(id=name, token_ids=list(task.prompt), num_prompt_tokens=len(task.prompt), params=params)


class Transformers:
    """transformers' generate: batches in arrival order, padded on the left, each as long as its longest task."""

    def __init__(self, folder: Path, dtype: str = "bfloat16", device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        self.name = f"transformers generate {dtype}"
        self.device = device
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().to(device)
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = 0

    def run(self, workload: Workload) -> Run:
        """Run batch after batch; a task's surplus tokens are cut off, which is what they cost a user too."""
        start = time.perf_counter()
        tokens, times = [], []
        for batch in static_batches(workload.tasks, workload.concurrency):
            stamps: list[float] = []
            outputs = self._generate(batch, stamps if len(batch) == 1 else None)
            tokens += [row[: task.num_tokens] for row, task in zip(outputs, batch, strict=True)]
            times += [[stamp - start for stamp in stamps]] * len(batch)
        return Run(time.perf_counter() - start, tokens, times)

    def _generate(self, batch: list[Task], stamps: list[float] | None) -> list[list[int]]:
        longest = max(len(task.prompt) for task in batch)
        padding = [longest - len(task.prompt) for task in batch]
        ids = torch.tensor([[0] * pad + task.prompt for pad, task in zip(padding, batch, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * len(task.prompt) for pad, task in zip(padding, batch, strict=True)])
        count = max(task.num_tokens for task in batch)
        with torch.inference_mode():
            out = self.model.generate(
                ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                streamer=None if stamps is None else _Stamps(stamps),
            )
        rows: list[list[int]] = out[:, longest:].tolist()
        return rows


class TransformersContinuous:
    """transformers' continuous batching: its own paged cache and scheduler, up to 32 requests at a time."""

    def __init__(self, folder: Path, dtype: str = "bfloat16", device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM, GenerationConfig  # noqa: PLC0415
        from transformers.generation.configuration_utils import ContinuousBatchingConfig  # noqa: PLC0415

        self.name = f"transformers continuous batching {dtype}"
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        self._context = (
            model.eval()
            .to(device)
            .continuous_batching_context_manager(
                generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
                continuous_batching_config=ContinuousBatchingConfig(
                    block_size=32, num_blocks=1024, max_batch_tokens=1024, max_requests_per_batch=32
                ),
                warmup=False,
            )
        )
        self._manager = self._context.__enter__()
        self._count = 0

    def run(self, workload: Workload) -> Run:
        """Submit every task at once and wait for all."""
        start = time.perf_counter()
        places: dict[str, int] = {}
        tokens: list[list[int]] = [[] for _ in workload.tasks]
        times: list[list[float]] = [[] for _ in workload.tasks]
        for index, task in enumerate(workload.tasks):
            self._count += 1
            name = f"r{self._count}"
            places[name] = index
            self._manager.add_request(
                task.prompt, request_id=name, max_new_tokens=task.num_tokens, eos_token_id=-1, streaming=True
            )
        while places:
            output = self._manager.get_result(timeout=1)
            if output is None:
                if not self._manager.is_running():
                    raise RuntimeError("transformers' generation thread died")
                continue
            index = places[output.request_id]
            fresh = len(output.generated_tokens) - len(times[index])
            times[index] += [time.perf_counter() - start] * fresh
            tokens[index] = list(output.generated_tokens)
            if output.is_finished():
                del places[output.request_id]
        return Run(time.perf_counter() - start, tokens, times)

    def close(self) -> None:
        """Stop its thread."""
        self._context.__exit__(None, None, None)


class _Stamps:
    """A streamer that notes when each token came."""

    def __init__(self, stamps: list[float]) -> None:
        self.stamps = stamps
        self.is_prompt = True

    def put(self, value: object) -> None:
        if not self.is_prompt:
            self.stamps.append(time.perf_counter())
        self.is_prompt = False

    def end(self) -> None:
        pass
