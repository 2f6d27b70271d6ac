"""The peers that are measured beside isotoken in the same process: transformers' two ways to generate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from isotoken.api.bench.engines import Isotoken, Run, Subject, speed
from isotoken.api.bench.workloads import Task, Workload, static_batches

__all__ = ["Isotoken", "Run", "Subject", "Transformers", "TransformersContinuous", "speed"]


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

    def logits(self, prompt: list[int], tokens: list[int]) -> Any:
        """As Oracle.logits: the whole sequence in one forward."""
        ids = torch.tensor([prompt + tokens[:-1]], device=self.device)
        with torch.inference_mode():
            found = self.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
        return np.asarray(found.float().cpu())

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
