"""GPU metrics, through a library with NVML's interface that is compiled here: no GPU is needed to test the reading."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

NVML = """
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) { *device = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = 80ULL << 30; memory->free = 0; memory->used = (unsigned long long)(long)device << 33; return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) { rates->gpu = 25 * (long)device; return 0; }
"""
SHOW = """
import sys
from prometheus_client import CollectorRegistry, generate_latest
from isotoken.api.server.gpu import GpuMeter
registry = CollectorRegistry()
registry.register(GpuMeter(sys.argv[1]))
print(generate_latest(registry).decode())
"""


def show(device: str, folder: Path) -> str:
    command = [sys.executable, "-c", SHOW, device]
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_every_gpu_is_read(tmp_path: Path) -> None:
    (tmp_path / "nvml.c").write_text(NVML)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "libnvidia-ml.so.1", "nvml.c"], cwd=tmp_path, check=True)
    families = text_string_to_metric_families(show("cuda:1", tmp_path))
    found = {(s.name, s.labels["gpu"]): s.value for family in families for s in family.samples}
    assert found == {
        ("llm_gpu_memory_bytes", "0"): 8 << 30,
        ("llm_gpu_memory_bytes", "1"): 16 << 30,
        ("llm_gpu_memory_total_bytes", "0"): 80 << 30,
        ("llm_gpu_memory_total_bytes", "1"): 80 << 30,
        ("llm_gpu_utilization_ratio", "0"): 0.25,
        ("llm_gpu_utilization_ratio", "1"): 0.5,
    }


def test_without_a_gpu_the_memory_is_0(tmp_path: Path) -> None:
    assert 'llm_gpu_memory_bytes{gpu="none"} 0.0' in show("cpu", tmp_path)
