"""The runner: a model and its K/V memory on one device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.batch import Batch
from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig, RunnerInfo, Sampler
from ..host_memory import available_bytes, gib
from . import memory
from .attention import GROUP_BYTES, Geometry, make_plan
from .layers import StepInputs
from .memory import CacheShape
from .model import Decoder
from .profile import PeakMemory, full_batch
from .sampler import TorchSampler
from .weights import WeightLoader

CPU_VERIFY_COST = {torch.bfloat16: 0.02, torch.float32: 0.14}
"""RunnerInfo.verify_cost on a CPU: the slope from one to eight tokens, measured with benchmarks.speculation."""


class TorchRunner:
    """Runs ragged batches on one device. Not thread-safe."""

    def __init__(
        self, checkpoint: Checkpoint, config: RunnerConfig, device: torch.device, dtype: torch.dtype, *, packed: bool
    ) -> None:
        spec = checkpoint.spec
        self.device = device
        self.max_model_len = spec.resolve_max_model_len(config.max_model_len)
        self.block_size = min(config.block_size, self.max_model_len)
        self.shape = CacheShape(spec.num_layers, 2 * spec.num_kv_heads, spec.head_dim, self.block_size, dtype)
        if device.type == "cpu":
            self._check_cpu_room(checkpoint, config)
        self.max_num_logits = max(config.max_num_logits, config.max_num_seqs)
        if config.max_num_logits == 0:
            self.max_num_logits = memory.default_max_num_logits(
                spec.vocab_size, config.max_num_seqs, config.max_num_batched_tokens
            )
        loader = WeightLoader(checkpoint, device, dtype, packed=packed)
        with torch.inference_mode():
            self.model = self._load_model(checkpoint, loader)
            num_blocks = config.num_blocks or self._default_num_blocks(config)
            self._set_caches(num_blocks)
        self.sampler: Sampler | None = TorchSampler()
        self.info = RunnerInfo(
            vocab_size=spec.vocab_size,
            eos_token_ids=checkpoint.eos_token_ids,
            max_model_len=self.max_model_len,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_num_logits=self.max_num_logits,
            block_size=self.block_size,
            num_blocks=num_blocks,
            dtype=str(dtype).removeprefix("torch."),
            device=str(device),
            asynchronous=device.type == "cuda",
            weight_bytes=loader.num_bytes,
            kv_cache_bytes=num_blocks * self.shape.block_bytes,
            verify_cost=CPU_VERIFY_COST.get(dtype, 0.0) if device.type == "cpu" else 0.0,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Run one step; float32 logits [L, vocab_size] on the device."""
        if self.caches.numel() == 0:
            raise RuntimeError("backend torch: the runner is closed")
        with torch.inference_mode():
            if len(batch.block_copies):
                self._copy_blocks(batch.block_copies)
            if len(batch.input_ids) == 0:
                return torch.empty(0, self.model.spec.vocab_size, device=self.device)
            return self.model.logits(self.model.forward(self._inputs(batch), self.caches))

    def close(self) -> None:
        """Give back the weights and the cache."""
        self.caches = torch.empty(0)
        if hasattr(self, "model"):
            del self.model
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _inputs(self, batch: Batch) -> StepInputs:
        """Bring the batch to the device in one copy, and plan its attention."""
        tile_size = self.shape.tile_size
        tiles, offsets = np.divmod(batch.slot_mapping, tile_size)
        ids, positions, tile_ids, offset_ids, wanted = self._to_device(
            batch.input_ids, batch.positions, tiles, offsets, batch.logits_indices
        )
        tile_ids, offset_ids = tile_ids.long(), offset_ids.long()
        self._clear_tiles(tiles[offsets == 0])
        table = self._tile_table(batch.block_table)
        plan = make_plan(batch.query_start_loc, batch.seq_lens, table, self.geometry)
        every = len(batch.logits_indices) == len(batch.input_ids)
        return StepInputs(ids, self.model.turns(positions), tile_ids, offset_ids, plan, None if every else wanted)

    def _set_caches(self, num_blocks: int) -> None:
        shape = self.shape
        self.caches = shape.allocate(num_blocks, self.device)
        rows = GROUP_BYTES["cpu"] // (shape.tile_size * shape.head_dim * shape.dtype.itemsize)
        self.geometry = Geometry(
            tile_size=shape.tile_size,
            kv_rows=shape.num_heads,
            zero_tile=self.caches.shape[1] - 1,
            token_bytes=shape.num_heads * shape.head_dim * shape.dtype.itemsize,
            device=self.device,
            scratch=self.caches.new_empty(rows, shape.tile_size * shape.head_dim),
        )

    def _load_model(self, checkpoint: Checkpoint, loader: WeightLoader) -> Decoder:
        try:
            return Decoder(checkpoint.spec, loader, self.max_model_len)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"backend torch: {gib(checkpoint.num_bytes)} of weights do not fit {self.device}: {error}"
            ) from error

    def _to_device(self, *arrays: NDArray[np.int32]) -> list[Tensor]:
        packed = torch.from_numpy(np.concatenate(arrays))
        if self.device.type == "cuda":
            packed = packed.pin_memory().to(self.device, non_blocking=True)
        return list(packed.split([len(array) for array in arrays]))

    def _tile_table(self, block_table: NDArray[np.int32]) -> NDArray[np.int32]:
        each = self.shape.tiles_per_block
        if each == 1:
            return block_table
        tiles = block_table[:, :, None] * each + np.arange(each, dtype=np.int32)
        return tiles.reshape(len(block_table), -1).astype(np.int32)

    def _clear_tiles(self, tiles: NDArray[np.int32]) -> None:
        """Zero the tiles begun in this step: what an earlier owner left there, NaN perhaps, would be gathered too."""
        if len(tiles):
            self.caches[:, torch.from_numpy(tiles).to(self.device).long()] = 0

    def _copy_blocks(self, copies: NDArray[np.int32]) -> None:
        tile_size, each = self.shape.tile_size, self.shape.tiles_per_block
        for source, target, tokens in copies.tolist():
            if source == target:  # its tokens are where they are needed
                continue
            whole, rest = divmod(tokens, tile_size)
            first, second = source * each, target * each
            self.caches[:, second : second + whole] = self.caches[:, first : first + whole]
            if rest:
                last = self.caches[:, second + whole]
                last.zero_()
                last[:, :, :rest] = self.caches[:, first + whole, :, :rest]

    def _check_cpu_room(self, checkpoint: Checkpoint, config: RunnerConfig) -> None:
        """Refuse before anything is read what the memory cannot hold."""
        free = available_bytes()
        wanted = config.num_blocks * self.shape.block_bytes
        if checkpoint.num_bytes + wanted > free:
            raise ValueError(
                f"backend torch: {gib(checkpoint.num_bytes)} of weights and {gib(wanted)} of K/V cache "
                f"do not fit {gib(free)} of free memory: choose a smaller model or lower num_blocks"
            )

    def _default_num_blocks(self, config: RunnerConfig) -> int:
        if self.device.type == "cpu":
            return memory.cpu_num_blocks(
                self.shape,
                max_model_len=self.max_model_len,
                max_num_seqs=config.max_num_seqs,
                memory_fraction=config.memory_fraction,
                free=available_bytes(),
            )
        reserve = self._profile(config)
        free, total = torch.cuda.mem_get_info(self.device)
        return memory.cuda_num_blocks(
            self.shape,
            max_model_len=self.max_model_len,
            memory_fraction=config.memory_fraction,
            free=free,
            total=total,
            reserve=reserve,
        )

    def _profile(self, config: RunnerConfig) -> int:
        """Run the largest step over a cache made for it alone and return the bytes that it needed besides."""
        batch = full_batch(config.max_num_batched_tokens, self.max_model_len, self.block_size, self.max_num_logits)
        self._set_caches(batch.block_table.size)
        with PeakMemory(self.device) as peak:
            self.forward(batch)
        self.caches = torch.empty(0)
        torch.cuda.empty_cache()
        return peak.bytes
