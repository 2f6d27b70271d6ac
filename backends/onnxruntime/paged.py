"""The form paged: a whole batch in one run, over blocks that may lie anywhere. CUDA only, and not yet run there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from ...core.batch import Batch
from ...core.interfaces import RunnerInfo, Sampler
from ..host_memory import gib
from .cuda import ELEMENT_TYPES, TORCH, TorchFeeds
from .memory import RowShape

Float32 = NDArray[np.float32]


class TorchBlocks:
    """Keys and values [2 * layers, num_blocks, block_size, kv_heads, D] in one torch tensor."""

    def __init__(self, shape: RowShape, num_blocks: int, dtype: str, device: torch.device) -> None:
        """Allocate blocks of `shape.num_positions` tokens. Raises ValueError where there is no room."""
        self.element_type = ELEMENT_TYPES[dtype]
        self.device = device
        size = (2 * shape.num_layers, num_blocks, shape.num_positions, shape.num_kv_heads, shape.head_dim)
        try:
            self.array = torch.zeros(size, dtype=TORCH[dtype], device=device)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            raise ValueError(
                f"backend onnxruntime: no memory for {num_blocks} blocks of K/V cache "
                f"({gib(num_blocks * shape.row_bytes)}) on {device}: lower num_blocks"
            ) from error

    def bind(self, io: ort.IOBinding) -> None:
        """Bind every layer's cache, as input and as output, to where it lies."""
        for index, cache in enumerate(self.array):
            layer, is_value = divmod(index, 2)
            name = "value" if is_value else "key"
            place = (self.device.type, self.device.index or 0, self.element_type, tuple(cache.shape), cache.data_ptr())
            io.bind_input(f"past_{name}.{layer}", *place)
            io.bind_output(f"present_{name}.{layer}", *place)


class PagedRunner:
    """Runs batches as they come: prompts beside decodes, by block tables. Not thread-safe."""

    def __init__(self, session: Any, blocks: TorchBlocks, info: RunnerInfo, *, sampler: Sampler | None) -> None:
        self.info = info
        self.sampler = sampler
        self._blocks: TorchBlocks | None = blocks
        self._session = session
        self._io = session.io_binding()
        blocks.bind(self._io)
        self._feeds = TorchFeeds(self._io, blocks.device)

    def forward(self, batch: Batch) -> Float32:
        """Run one step; float32 logits [L, vocab_size] on the host."""
        if self._blocks is None:
            raise RuntimeError("backend onnxruntime: the runner is closed")
        for source, target, num_tokens in batch.block_copies.tolist():
            if source != target:
                cache = self._blocks.array
                cache[:, target, :num_tokens] = cache[:, source, :num_tokens]
        logits = np.empty((len(batch.logits_indices), self.info.vocab_size), np.float32)
        if not len(batch.input_ids):
            return logits
        for name, values in paged_inputs(batch).items():
            self._feeds.put(name, values)
        self._feeds.want(logits)
        self._session.run_with_iobinding(self._io, None)
        self._feeds.fetch(logits)
        return logits

    def close(self) -> None:
        """Give back the weights and the blocks."""
        self._blocks = self._session = self._io = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def paged_inputs(batch: Batch) -> dict[str, NDArray[Any]]:
    """Return the graph's inputs besides the cache: the batch's own arrays, nearly."""
    lens = batch.seq_lens
    return {
        "input_ids": batch.input_ids.astype(np.int64),
        "logits_indices": batch.logits_indices.astype(np.int64),
        "cumulative_sequence_length": batch.query_start_loc,
        "past_seqlens": batch.context_lens,
        "block_table": batch.block_table,
        "slot_mapping": batch.slot_mapping,
        "attention_metadata": np.array([batch.query_lens.max(), lens.max(), lens.min()], np.int32),
    }
