"""Run onnxruntime-genai under its own Python; see worker_loop.py.

load: "folder", "max_batch", "spinning" (of its threads: off, brief, on). run: "way", and its "batch".
Ways to run: "generator" (static batches of `batch` in arrival order, padded on the right, each as long as its longest
task), "engine" (the Engine API, `batch` requests at a time), "shared" (one Generator for all tasks, set back to the
prompt tokens that all share).
"""

from __future__ import annotations

import importlib
import json
import time
from typing import Any

import numpy as np
from worker_loop import Task, Times, serve

SPINNING = {
    "off": {"allow_spinning": "0"},
    "brief": {"allow_spinning": "1", "spin_duration_us": "20"},
    "on": {"allow_spinning": "1"},
}
"""Configuration entries of ONNX Runtime, of which spinning is the default."""


class Genai:
    """One model folder that onnxruntime_genai's builder wrote."""

    def __init__(self, folder: str, threads: int, max_batch: int, spinning: str) -> None:
        self.og = og = importlib.import_module("onnxruntime_genai")
        options: dict[str, Any] = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        options |= {f"session.intra_op.{key}": value for key, value in SPINNING[spinning].items()}
        config = og.Config(folder)
        config.overlay(
            json.dumps(
                {
                    "model": {"decoder": {"session_options": options}},
                    "engine": {"static_batching": {"max_batch_size": max_batch}},
                }
            )
        )
        self.model = og.Model(config)
        self.engine = og.Engine(self.model)

    def versions(self) -> dict[str, str]:
        """What runs here."""
        runtime = importlib.import_module("onnxruntime")
        return {"onnxruntime-genai": self.og.__version__, "onnxruntime": runtime.__version__}

    def run(self, tasks: list[Task], start: float, *, way: str, batch: int) -> tuple[list[list[int]], Times]:
        """Run them one way."""
        ways = {"generator": self.generator, "engine": self.engine_api, "shared": self.shared}
        return ways[way](tasks, batch, start)

    def generator(self, tasks: list[Task], batch: int, start: float) -> tuple[list[list[int]], Times]:
        """Static batches. Padding goes to the right: on the left the attention operator would count it as context."""
        tokens: list[list[int]] = []
        times: Times = []
        for first in range(0, len(tasks), batch):
            some = tasks[first : first + batch]
            longest, count = max(len(prompt) for prompt, _ in some), max(num for _, num in some)
            padding = 2  # the model's pad token, from which the library makes its mask
            rows = np.array([prompt + [padding] * (longest - len(prompt)) for prompt, _ in some], np.int32)
            generator = self._generator(len(some), longest + count, longest + count)
            generator.append_tokens(rows)
            columns, stamps = self._steps(generator, count, start)
            tokens += [column[:num] for column, (_, num) in zip(np.stack(columns, 1).tolist(), some, strict=True)]
            times += [stamps[:num] for _, num in some]
        return tokens, times

    def shared(self, tasks: list[Task], batch: int, start: float) -> tuple[list[list[int]], Times]:
        """One at a time, what all prompts share computed once."""
        prompts = [prompt for prompt, _ in tasks]
        same = 0
        for column in zip(*prompts, strict=False):
            if len(set(column)) > 1:
                break
            same += 1
        same = min(same, min(map(len, prompts)) - 1)
        longest = max(len(prompt) + num for prompt, num in tasks)
        generator = self._generator(1, longest, 0)
        if same:
            generator.append_tokens(np.array([prompts[0][:same]], np.int32))
        tokens: list[list[int]] = []
        times: Times = []
        for prompt, num in tasks:
            generator.append_tokens(np.array([prompt[same:]], np.int32))
            columns, stamps = self._steps(generator, num, start)
            tokens.append([int(column[0]) for column in columns])
            times.append(stamps)
            generator.rewind_to(same)
        return tokens, times

    def _generator(self, batch: int, max_length: int, min_length: int) -> Any:
        params = self.og.GeneratorParams(self.model)
        params.set_search_options(
            max_length=max_length,
            min_length=min_length,
            batch_size=batch,
            do_sample=False,
            past_present_share_buffer=True,
        )
        return self.og.Generator(self.model, params)

    def _steps(self, generator: Any, count: int, start: float) -> tuple[list[Any], list[float]]:
        columns, stamps = [], []
        for _ in range(count):
            generator.generate_next_token()
            columns.append(np.array(generator.get_next_tokens()))
            stamps.append(time.perf_counter() - start)
        return columns, stamps

    def engine_api(self, tasks: list[Task], batch: int, start: float) -> tuple[list[list[int]], Times]:
        """The Engine API, which admits up to max_batch requests at once, as it likes."""
        og, tokens, times = self.og, [], []
        events = self.engine.create_event_buffer(4096)
        for first in range(0, len(tasks), batch):
            requests = [self._request(prompt, num) for prompt, num in tasks[first : first + batch]]
            drawn: list[list[int]] = [[] for _ in requests]
            stamps: Times = [[] for _ in requests]
            while self.engine.has_pending_requests():
                for event in self.engine.run(events):
                    if event.flags.value & og.EngineEventFlags.FAILED.value:
                        raise RuntimeError(f"the engine failed: {event.error_code}")
                    if event.flags.value & og.EngineEventFlags.TOKEN.value:
                        index = requests.index(event.request)
                        drawn[index].append(int(event.token))
                        stamps[index].append(time.perf_counter() - start)
            for request in requests:
                request.close()
            tokens += drawn
            times += stamps
        return tokens, times

    def _request(self, prompt: list[int], num: int) -> Any:
        options = self.og.RequestOptions()
        options.set_max_session_tokens(len(prompt) + num)
        request = self.engine.create_request(options=options)
        turn = self.og.TurnOptions(request)
        turn.set_max_generated_tokens(num)
        turn.set_min_generated_tokens(num)
        turn.set_do_sample(False)
        request.begin_turn(np.array(prompt, np.int32), turn)
        return request


if __name__ == "__main__":
    raise SystemExit(serve(Genai))
