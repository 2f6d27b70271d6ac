"""Engines that serve one model together, as when it is swapped: their gauges add up, and counters never fall."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from isotoken.api.engine import EngineStats
from isotoken.api.server.engine_metrics import EngineMetrics
from isotoken.api.server.process_metrics import Processes


def engine(**stats: Any) -> Any:
    """What the metrics look at of an engine."""
    info = SimpleNamespace(device="cpu", max_num_seqs=8)
    return SimpleNamespace(info=info, stats=EngineStats(**stats), takes_requests=True, is_stuck=False, silence=0.0)


def shown(metrics: EngineMetrics, name: str) -> dict[str, float]:
    return {
        sample.labels["model"]: sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_versions_of_a_model_are_told_together() -> None:
    metrics = EngineMetrics()
    old = engine(num_steps=100, num_running=3, num_blocks=10, num_free_blocks=5)
    new = engine(num_steps=7, num_running=1, num_blocks=10, num_free_blocks=10)
    metrics.attach(old, "chat")
    metrics.attach(new, "chat")
    metrics.attach(engine(num_steps=1), "other")
    assert shown(metrics, "llm_engine_steps_total") == {"chat": 107, "other": 1}
    assert shown(metrics, "llm_requests_running") == {"chat": 4, "other": 0}
    assert shown(metrics, "llm_kv_usage_ratio")["chat"] == 0.25
    new.is_stuck = True
    assert shown(metrics, "llm_engine_stuck") == {"chat": 1, "other": 0}
    metrics.detach(old)
    assert shown(metrics, "llm_engine_steps_total")["chat"] == 107
    assert shown(metrics, "llm_requests_running")["chat"] == 1
    new.stats.num_steps += 1
    assert shown(metrics, "llm_engine_steps_total")["chat"] == 108


def test_the_cpu_time_of_processes_that_are_gone_stays() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ninput()"
    processes = Processes()
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used, resident = processes.read([process.pid])
        assert used >= 0.15  # the system counts in ticks
        assert resident > 2**20
        process.communicate(b"\n")
    assert processes.read([process.pid]) == (used, 0)
    assert processes.read([]) == (used, 0)
