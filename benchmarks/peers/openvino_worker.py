"""Run OpenVINO GenAI under its own Python; see worker_loop.py.

load: "folder", "hint" (what it computes in: f32, bf16), "kv" (precision of its K/V cache; "": its own choice).
run: "lead": whether the first task runs alone, so that the others find its prefix.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np
from worker_loop import Task, Times, serve

CACHE_GB = 4
MAX_NUM_SEQS = 64
MAX_NUM_BATCHED_TOKENS = 1024


class Engine:
    """One model folder that optimum-intel wrote."""

    def __init__(self, folder: str, threads: int, hint: str, kv: str) -> None:
        self.openvino = importlib.import_module("openvino")
        self.genai = genai = importlib.import_module("openvino_genai")
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.max_num_seqs = MAX_NUM_SEQS
        scheduler.max_num_batched_tokens = MAX_NUM_BATCHED_TOKENS
        scheduler.enable_prefix_caching = True
        scheduler.dynamic_split_fuse = True
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
        if kv:
            properties["KV_CACHE_PRECISION"] = kv
        self.pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
        self.count = 0

    def versions(self) -> dict[str, str]:
        """What runs here."""
        return {"openvino": self.openvino.__version__, "openvino-genai": self.genai.__version__}

    def run(self, tasks: list[Task], start: float, *, lead: bool) -> tuple[list[list[int]], Times]:
        """Submit all at once, or all but the first once that is done."""
        if not lead:
            return self._run(tasks, start)
        first, rest = self._run(tasks[:1], start), self._run(tasks[1:], start)
        return first[0] + rest[0], first[1] + rest[1]

    def _run(self, tasks: list[Task], start: float) -> tuple[list[list[int]], Times]:
        handles = [self._add(prompt, num) for prompt, num in tasks]
        tokens: list[list[int]] = [[] for _ in tasks]
        times: Times = [[] for _ in tasks]
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            now = time.perf_counter() - start
            for handle, drawn, stamps in zip(handles, tokens, times, strict=True):
                if handle.can_read():
                    for output in handle.read().values():
                        drawn.extend(output.generated_ids)
                        stamps.extend([now] * len(output.generated_ids))
        return tokens, times

    def _add(self, prompt: list[int], num: int) -> Any:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = num
        config.ignore_eos = True
        config.do_sample = False
        self.count += 1
        return self.pipeline.add_request(self.count, self.openvino.Tensor(np.array([prompt], np.int64)), config)


if __name__ == "__main__":
    raise SystemExit(serve(Engine))
