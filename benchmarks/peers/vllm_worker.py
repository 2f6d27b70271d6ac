"""Run vLLM under its own Python; see worker_loop.py. load: "folder", "dtype". run: nothing more."""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

from worker_loop import Task, Times, serve

MAX_NUM_SEQS = 64
MAX_MODEL_LEN = 1024
KV_CACHE_GB = 4


class Engine:
    """One model."""

    def __init__(self, folder: str, threads: int, dtype: str) -> None:
        os.environ |= {
            "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GB),
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}" if threads > 1 else "0",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self.vllm = vllm = importlib.import_module("vllm")
        self.llm = vllm.LLM(
            model=folder,
            dtype=dtype,
            max_num_seqs=MAX_NUM_SEQS,
            max_model_len=MAX_MODEL_LEN,
            enable_prefix_caching=True,
            max_num_batched_tokens=2048,
            disable_log_stats=True,
            seed=0,
        )
        self.count = 0

    def versions(self) -> dict[str, str]:
        """What runs here."""
        return {"vllm": self.vllm.__version__, "torch": importlib.import_module("torch").__version__}

    def run(self, tasks: list[Task], start: float) -> tuple[list[list[int]], Times]:
        """Submit all at once."""
        engine, first = self.llm.llm_engine, self.count
        for prompt, num in tasks:
            self._add(engine, prompt, num)
        tokens: list[list[int]] = [[] for _ in tasks]
        times: Times = [[] for _ in tasks]
        while engine.has_unfinished_requests():
            outputs = engine.step()
            now = time.perf_counter() - start
            for output in outputs:
                index, drawn = int(output.request_id.split("-")[0]) - first, list(output.outputs[0].token_ids)
                times[index] += [now] * (len(drawn) - len(tokens[index]))
                tokens[index] = drawn
        return tokens, times

    def _add(self, engine: Any, prompt: list[int], num: int) -> None:
        params = self.vllm.SamplingParams(temperature=0.0, max_tokens=num, ignore_eos=True, detokenize=False)
        engine.add_request(str(self.count), self.vllm.TokensPrompt(prompt_token_ids=prompt), params)
        self.count += 1


if __name__ == "__main__":
    raise SystemExit(serve(Engine))
