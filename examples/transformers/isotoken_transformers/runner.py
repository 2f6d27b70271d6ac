"""The runner: transformers' forward for one request after the other, over rows of keys and values that we keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from isotoken.core.batch import Batch
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.fast_sampler import FastSampler
from isotoken.core.interfaces import RunnerInfo, Sampler
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicLayer


class RowLayer(DynamicLayer):
    """One layer of one request's cache: it writes into a row that is ours instead of growing a tensor of its own.

    `start` comes from the batch. So a row needs no reset when a request leaves it, is preempted or has drafts rejected:
    what lies past `start` is overwritten before anybody looks.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, start: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._row = keys, values  # [1, kv_heads, max_model_len, head_dim] each
        self._start = start
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write this step's keys and values [1, kv_heads, T, head_dim]; return all up to them."""
        keys, values = self._row
        stop = self._start + key_states.shape[-2]
        keys[:, :, self._start : stop] = key_states
        values[:, :, self._start : stop] = value_states
        return keys[:, :, :stop], values[:, :, :stop]

    def get_seq_length(self) -> int:
        """Tokens computed before this step."""
        return self._start


class TransformersRunner:
    """A loaded model with its rows of keys and values [layers, rows, kv_heads, max_model_len, head_dim]."""

    def __init__(
        self, checkpoint: Checkpoint, info: RunnerInfo, dtype: torch.dtype, *, attention: str, num_threads: int
    ) -> None:
        self.info, self._num_threads = info, num_threads
        self.sampler: Sampler | None = FastSampler()  # isotoken's own, for logits on the host
        spec = checkpoint.spec
        model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.path, dtype=dtype, attn_implementation=attention, local_files_only=True
        )
        self._model = model.to(info.device).eval()
        shape = (spec.num_layers, info.num_blocks, spec.num_kv_heads, info.max_model_len, spec.head_dim)
        self._keys = torch.empty(shape, dtype=dtype, device=info.device)
        self._values = torch.empty(shape, dtype=dtype, device=info.device)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Compute one step; see ModelRunner.forward. Returns a new array [L, vocab_size]."""
        if torch.get_num_threads() != self._num_threads:
            torch.set_num_threads(self._num_threads)  # of the whole process, which may hold another runner
        for source, target, num_tokens in batch.block_copies.tolist():
            for cache in (self._keys, self._values):
                cache[:, target, :, :num_tokens] = cache[:, source, :, :num_tokens]
        logits = np.empty((len(batch.logits_indices), self.info.vocab_size), np.float32)
        for request in range(len(batch.seq_lens)):
            logits[batch.logits_rows([request])] = self._run(batch.select([request]))
        return logits

    def _run(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Compute a batch of one request, whose one block is its row."""
        row, start = int(batch.block_table[0, 0]), int(batch.context_lens[0])
        rows = zip(self._keys[:, row : row + 1], self._values[:, row : row + 1], strict=True)
        layers: list[Any] = [RowLayer(keys, values, start) for keys, values in rows]
        output = self._model(
            input_ids=self._tensor(batch.input_ids)[None],
            position_ids=self._tensor(batch.positions)[None],
            past_key_values=Cache(layers=layers),
            use_cache=True,
            logits_to_keep=self._tensor(batch.logits_indices),
        )
        logits: np.ndarray[Any, np.dtype[np.float32]] = output.logits[0].float().cpu().numpy()
        return logits

    def _tensor(self, values: np.ndarray[Any, np.dtype[np.int32]]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.info.device)  # a copy: the batch stays the caller's

    def close(self) -> None:
        """Forget the model and its rows."""
        self._model = None
        self._keys = self._values = torch.empty(0)
