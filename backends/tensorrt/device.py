"""Device memory and its one stream of work: what the backend needs of CUDA, and CUDA through torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.types import Unsupported

Bytes = NDArray[np.uint8]
Where = tuple[int | slice, ...]
"""Places in device memory that is looked at as an array of bytes of some shape."""

ALIGNMENT = 256  # bytes; what TensorRT asks of addresses that it updates in place


class Memory(Protocol):
    """A piece of device memory. Its operations are put on the device's stream and come in order."""

    @property
    def address(self) -> int:
        """A multiple of ALIGNMENT."""
        ...

    @property
    def num_bytes(self) -> int:
        """Its size."""
        ...

    def upload(self, data: Bytes) -> None:
        """Copy to the beginning. The caller may change `data` once this returns."""
        ...

    def download(self, start: int, into: Bytes) -> None:
        """Copy from `start` on to memory of `allocate_host`, which holds it after `Device.synchronize`."""
        ...

    def copy(self, shape: tuple[int, ...], target: Where, source: Where) -> None:
        """Copy between two places of this memory, looked at as bytes of `shape`, that do not overlap."""
        ...

    def clear(self, shape: tuple[int, ...], where: Where) -> None:
        """Set to zero."""
        ...


class Device(Protocol):
    """One GPU, used by one thread, with one stream."""

    @property
    def name(self) -> str:
        """As in RunnerInfo.device, such as "cuda:0"."""
        ...

    @property
    def model(self) -> str:
        """What engines are built for: its product name and compute capability."""
        ...

    @property
    def stream(self) -> int:
        """The handle of the stream, which is not the default one."""
        ...

    def active(self) -> AbstractContextManager[Any]:
        """Make it the thread's current device; TensorRT works on that one."""
        ...

    def free_bytes(self) -> tuple[int, int]:
        """Free memory, and all memory."""
        ...

    def allocate(self, num_bytes: int, what: str) -> Memory:
        """Allocate zeroed memory. Raises ValueError that names `what` when there is not enough."""
        ...

    def allocate_host(self, num_bytes: int) -> Bytes:
        """Allocate host memory that the device can write to."""
        ...

    def synchronize(self) -> None:
        """Wait for the stream."""
        ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` puts on the stream, without doing it; calling the result does it all at once."""
        ...


def find_gpu(name: str = "cuda") -> str:
    """Return what is missing for running on "cuda" or "cuda:N", or nothing. Touches torch only."""
    if torch.version.cuda is None:
        return f"an NVIDIA GPU is needed, and torch {torch.__version__} is built without CUDA (https://pytorch.org/get-started)"
    if not torch.cuda.is_available():
        return "an NVIDIA GPU and its driver are needed, and torch finds none"
    kind, _, index = name.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        return f"device {name!r} is not one of cuda, cuda:N"
    if index and int(index) >= torch.cuda.device_count():
        return f"device {name!r} is not here: {torch.cuda.device_count()} GPU(s) found"
    return ""


def open_device(name: str) -> CudaDevice:
    """Open "auto", "cuda" or "cuda:N". Raises Unsupported that says what is missing."""
    name = "cuda" if name == "auto" else name
    if missing := find_gpu(name):
        raise Unsupported(f"backend tensorrt: {missing}")
    return CudaDevice(torch.device(name if ":" in name else f"cuda:{torch.cuda.current_device()}"))


class CudaDevice:
    """A GPU through torch's allocator, so that all engines of a process share its memory."""

    def __init__(self, device: torch.device) -> None:
        self.name = str(device)
        self._device = device
        self._stream = torch.cuda.Stream(device)
        major, minor = torch.cuda.get_device_capability(device)
        self.model = f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"
        self.stream: int = self._stream.cuda_stream

    def active(self) -> AbstractContextManager[Any]:
        """See Device; torch's work goes to the stream meanwhile."""
        return torch.cuda.stream(self._stream)

    def free_bytes(self) -> tuple[int, int]:
        """See Device."""
        free, total = torch.cuda.mem_get_info(self._device)
        return free, total

    def allocate(self, num_bytes: int, what: str) -> CudaMemory:
        """See Device."""
        try:
            with self.active():
                tensor = torch.zeros(max(num_bytes, 1), dtype=torch.uint8, device=self._device)
        except torch.OutOfMemoryError as error:
            free, total = self.free_bytes()
            raise ValueError(
                f"backend tensorrt: no memory for {what}: {num_bytes / 2**30:.2f} GiB wanted on {self.name}, "
                f"{free / 2**30:.2f} of {total / 2**30:.2f} GiB are free: lower max_num_seqs, num_blocks, max_model_len"
            ) from error
        return CudaMemory(self, tensor)

    def allocate_host(self, num_bytes: int) -> Bytes:
        """See Device."""
        array: Bytes = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True).numpy()
        return array

    def synchronize(self) -> None:
        """See Device."""
        self._stream.synchronize()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See Device. A CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            work()

        def replay() -> None:
            with self.active():
                graph.replay()

        return replay


class CudaMemory:
    """Memory of torch's allocator, which aligns to 512 bytes."""

    def __init__(self, device: CudaDevice, tensor: torch.Tensor) -> None:
        self._device, self._tensor = device, tensor
        self.address = tensor.data_ptr()
        self.num_bytes = tensor.numel()

    def upload(self, data: Bytes) -> None:
        """See Memory. The pinned copy is torch's to keep until the device has read it."""
        with self._device.active():
            self._tensor[: len(data)].copy_(torch.from_numpy(data).pin_memory(), non_blocking=True)

    def download(self, start: int, into: Bytes) -> None:
        """See Memory."""
        with self._device.active():
            torch.from_numpy(into).copy_(self._tensor[start : start + len(into)], non_blocking=True)

    def copy(self, shape: tuple[int, ...], target: Where, source: Where) -> None:
        """See Memory."""
        with self._device.active():
            view = self._tensor.view(shape)
            view[target] = view[source]

    def clear(self, shape: tuple[int, ...], where: Where) -> None:
        """See Memory."""
        with self._device.active():
            self._tensor.view(shape)[where] = 0
