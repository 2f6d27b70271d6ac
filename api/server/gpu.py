"""Memory and utilisation of the GPUs, through NVML where a driver has it: no Python package and no engine needed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class GpuMeter:
    """Reads the devices when asked. Where the engine runs on none, the memory is told as 0 and nothing else is."""

    def __init__(self, device: str) -> None:
        self._nvml = _load_nvml() if device.startswith("cuda") else None

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of every GPU."""
        used = GaugeMetricFamily("llm_gpu_memory_bytes", "GPU memory in use; 0 on a machine without", labels=["gpu"])
        total = GaugeMetricFamily("llm_gpu_memory_total_bytes", "GPU memory there is", labels=["gpu"])
        busy = GaugeMetricFamily("llm_gpu_utilization_ratio", "Share of time that a kernel ran", labels=["gpu"])
        if self._nvml is None:
            used.add_metric(["none"], 0)
        else:
            for gpu in range(_count(self._nvml)):
                _measure(self._nvml, gpu, used, total, busy)
        yield from (used, total, busy)


def _load_nvml() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


def _count(nvml: ctypes.CDLL) -> int:
    count = ctypes.c_uint()
    return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0


def _measure(
    nvml: ctypes.CDLL, gpu: int, used: GaugeMetricFamily, total: GaugeMetricFamily, busy: GaugeMetricFamily
) -> None:
    handle, memory, utilization = ctypes.c_void_p(), _Memory(), _Utilization()
    if nvml.nvmlDeviceGetHandleByIndex_v2(gpu, ctypes.byref(handle)) != 0:
        return
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
        used.add_metric([str(gpu)], memory.used)
        total.add_metric([str(gpu)], memory.total)
    if nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(utilization)) == 0:
        busy.add_metric([str(gpu)], utilization.gpu / 100)
