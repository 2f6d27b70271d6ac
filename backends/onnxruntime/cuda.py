"""The CUDA execution provider: what it needs, how it is set up, and rows of K/V in torch's memory.

None of this has run on a GPU yet: none was at hand. What can be tested without one is: that a session on the CPU
computes in torch's memory, which options the provider gets, and what is said when something is missing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.types import Unsupported
from ..host_memory import gib
from .bindings import Float32
from .memory import RowShape

PROVIDER = "CUDAExecutionProvider"
TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ELEMENT_TYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": 16}  # 16: ONNX's number
SMALLEST_BUCKET = 256
ON_HOST = ("total_sequence_length", "attention_metadata")
RECORDED = {"session.record_ep_graph_assignment_info": "1"}
"""The session's configuration that require_kernels needs."""
HEAVY = frozenset({
    "Attention", "DequantizeLinear", "Gelu", "Gemm", "GroupQueryAttention", "MatMul", "MatMulNBits", "PagedAttention",
    "RMSNormalization", "RotaryEmbedding", "Sigmoid", "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization", "Softmax", "TensorScatter",
})  # fmt: skip
"""Operators on weights, activations and the cache. Those on sizes and indices belong on the host."""


def find_device(wanted: str) -> torch.device:
    """Return the device for "cuda" or "cuda:1". Raises Unsupported saying what is missing."""
    name, _, index = wanted.partition(":")
    if name != "cuda" or (index and not index.isdecimal()):
        raise Unsupported(f"backend onnxruntime: device {wanted!r} is not one of auto, cpu, cuda, cuda:N")
    if reason := missing():
        raise Unsupported(f"backend onnxruntime: device {wanted!r} cannot be used here: {reason}")
    if int(index or 0) >= torch.cuda.device_count():
        raise Unsupported(
            f"backend onnxruntime: device {wanted!r} is not here: {torch.cuda.device_count()} GPU(s) found"
        )
    return torch.device("cuda", int(index or 0))


def missing() -> str | None:
    """Return what CUDA lacks here besides ONNX Runtime's own libraries, or None."""
    if torch.version.cuda is None:
        return (
            f"it keeps K/V in torch's memory, and torch {torch.__version__} is built without CUDA "
            "(see https://pytorch.org/get-started)"
        )
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU, or no driver for it"
    return None


def provider_options(device_index: int, stream: int, *, graphs: bool) -> dict[str, str]:
    """Return the settings of the CUDA provider: exact float32, torch's stream, memory as it is needed."""
    return {
        "device_id": str(device_index),
        "user_compute_stream": str(stream),
        "use_tf32": "0",  # ten bits of mantissa would do for nobody who asks for float32
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(graphs)),
    }


def require_provider(session: ort.InferenceSession) -> None:
    """Raise Unsupported if ONNX Runtime has quietly put the CPU in CUDA's place."""
    if (first := session.get_providers()[0]) != PROVIDER:
        raise Unsupported(
            f"backend onnxruntime: the session runs on {first}: {PROVIDER} could not be loaded, most often because the "
            "CUDA libraries that this onnxruntime-gpu was built for are not here (its log on stderr names them)"
        )


def require_kernels(session: ort.InferenceSession, provider: str = PROVIDER) -> None:
    """Raise Unsupported if ONNX Runtime has quietly put operators that do the work on the CPU, for want of kernels."""
    parts = session.get_provider_graph_assignment_info()
    elsewhere = {node.op_type for part in parts if part.ep_name != provider for node in part.get_nodes()}
    if strays := sorted(elsewhere & HEAVY):
        raise Unsupported(
            f"backend onnxruntime: onnxruntime {ort.__version__} would run {', '.join(strays)} on the CPU, for it has "
            f"no kernels of {provider} for them in this dtype: choose another dtype, kv_cache_dtype or option attention"
        )


def length_bucket(length: int, limit: int) -> int:
    """Return the power of two from 256 on that holds `length` tokens, or `limit`: recordings are kept for each."""
    return min(max(SMALLEST_BUCKET, 1 << (length - 1).bit_length()), limit)


class TorchRows:
    """Rows in one torch tensor, bound by address."""

    def __init__(self, shape: RowShape, num_rows: int, dtype: str, device: torch.device) -> None:
        self.shape = shape
        self.device = device.type, device.index or 0
        self.element_type = ELEMENT_TYPES[dtype]
        try:
            self.array = torch.zeros(shape.array(num_rows), dtype=TORCH[dtype], device=device)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            raise ValueError(
                f"backend onnxruntime: no memory for {num_rows} rows of K/V cache ({gib(num_rows * shape.row_bytes)}) "
                f"on {device}: lower num_blocks, or max_model_len and max_num_seqs"
            ) from error
        self._torch_device = device

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, all layers together."""
        return self.shape.token_bytes

    def address(self, index: int, row: int) -> int:
        """Where a row begins in keys or values number `index` of 2 * layers."""
        return int(self.array[index, row].data_ptr())

    def touch(self, rows: Any, ends: Any) -> None:
        """Nothing to do: all of it is committed."""

    def renew(self, row: int, end: int) -> None:
        """Nothing to do: all of it is committed."""

    def feeds(self, io: ort.IOBinding) -> TorchFeeds:
        """Return what feeds a binding's small inputs and takes its logits."""
        return TorchFeeds(io, self._torch_device)

    def close(self) -> None:
        """Give back everything. Calling it twice is harmless."""
        self.array = torch.empty(0)
        if self._torch_device.type == "cuda":
            torch.cuda.empty_cache()


class TorchFeeds:
    """Inputs and logits in torch tensors beside the rows, at addresses that stay while shapes do."""

    def __init__(self, io: ort.IOBinding, device: torch.device) -> None:
        self._io, self._device = io, device
        self._inputs: dict[str, Tensor] = {}
        self._logits = torch.empty(0, 0, device=device)

    def put(self, name: str, values: NDArray[Any]) -> None:
        """See Feeds. What the operators read on the host stays there."""
        source = torch.from_numpy(values)
        bound = self._inputs.get(name)
        if bound is not None and bound.shape == source.shape:
            bound.copy_(source)
            return
        device = torch.device("cpu") if name in ON_HOST else self._device
        memory, self._inputs[name] = _allocate(tuple(source.shape), source.dtype, device)
        self._inputs[name].copy_(source)
        place = device.type, device.index or 0
        self._io.bind_input(name, *place, values.dtype.type, values.shape, memory.data_ptr())

    def want(self, logits: Float32) -> None:
        """See Feeds."""
        if self._logits.shape != logits.shape:
            memory, self._logits = _allocate(logits.shape, torch.float32, self._device)
            place = self._device.type, self._device.index or 0
            self._io.bind_output("logits", *place, np.float32, logits.shape, memory.data_ptr())

    def fetch(self, logits: Float32) -> None:
        """See Feeds."""
        torch.from_numpy(logits).copy_(self._logits)

    @property
    def bound(self) -> None:
        """See Feeds."""
        return None


def _allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return memory and a tensor of a shape in it. The memory is never empty: ONNX Runtime refuses the address 0."""
    size = math.prod(shape)
    memory = torch.empty(max(size, 1), dtype=dtype, device=device)
    return memory, memory[:size].view(shape)
