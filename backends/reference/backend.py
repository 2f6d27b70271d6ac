"""The reference backend: what it can do, and what it grants of what is asked."""

from __future__ import annotations

from dataclasses import replace

from ...core.capabilities import Capabilities
from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig, RunnerInfo
from ...core.quantization import refuse_absent
from ...core.types import Unsupported
from ..limits import check_limits
from .layers import blas_linear, linear
from .runner import ReferenceRunner
from .weights import load_weights

CAPABILITIES = Capabilities(
    dtypes=frozenset({"float64", "float32"}),
    devices=frozenset({"cpu"}),
    batch_invariant=True,  # layers.py says how
)
LINEAR = {"ordered": linear, "blas": blas_linear}
"""For --option sums=...: ordered is what the declared batch_invariant rests on; blas is many times faster."""

DEFAULT_NUM_LOGITS = 256  # enough to score a prompt in a few steps
DEFAULT_KV_CACHE_BYTES = 2**30  # at most, when num_blocks is left open


class ReferenceBackend:
    """Plain numpy."""

    name = "reference"
    capabilities = CAPABILITIES

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> ReferenceRunner:
        """Copy the weights into memory, in the compute dtype. Raises Unsupported or ValueError before that."""
        info = plan(checkpoint, config)
        weights = load_weights(checkpoint, info.dtype)
        weight_bytes = sum(array.nbytes for array in weights.values())
        info = replace(info, weight_bytes=weight_bytes)
        return ReferenceRunner(checkpoint.spec, weights, info, LINEAR[config.options.get("sums", "ordered")])


def plan(checkpoint: Checkpoint, config: RunnerConfig) -> RunnerInfo:
    """Check what is asked and settle what is left open."""
    _check(config)
    spec = checkpoint.spec
    dtype = config.dtype
    if dtype == "auto":
        dtype = checkpoint.dtype if checkpoint.dtype in CAPABILITIES.dtypes else "float32"
    max_model_len = spec.resolve_max_model_len(config.max_model_len)
    item_bytes = 8 if dtype == "float64" else 4
    block_bytes = config.block_size * spec.num_layers * 2 * spec.kv_size * item_bytes
    num_blocks = config.num_blocks or _default_num_blocks(config, max_model_len, block_bytes)
    return RunnerInfo(
        vocab_size=spec.vocab_size,
        eos_token_ids=checkpoint.eos_token_ids,
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_logits=config.max_num_logits or max(config.max_num_seqs, DEFAULT_NUM_LOGITS),
        block_size=config.block_size,
        num_blocks=num_blocks,
        dtype=dtype,
        device="cpu",
        kv_cache_bytes=num_blocks * block_bytes,
    )


def _check(config: RunnerConfig) -> None:
    """Refuse what this backend does not do, and settings that make no sense."""
    if config.dtype not in ("auto", *CAPABILITIES.dtypes):
        raise Unsupported(f"backend reference computes in float64 or float32, not in {config.dtype!r}")
    if config.device.split(":")[0] not in ("auto", "cpu"):
        raise Unsupported(f"backend reference runs on the cpu only, not on {config.device!r}")
    refuse_absent("reference", CAPABILITIES, quantization=config.quantization, kv_cache_dtype="auto")
    if config.kv_cache_dtype not in ("auto", config.dtype):
        raise Unsupported(f"backend reference keeps K/V in the compute dtype, not in {config.kv_cache_dtype!r}")
    if config.tensor_parallel_size != 1:
        raise Unsupported(f"backend reference runs in one process (tensor_parallel_size {config.tensor_parallel_size})")
    for key, choice in config.options.items():
        if key != "sums" or choice not in LINEAR:
            only = f"its only one is sums={'|'.join(LINEAR)}"
            raise ValueError(f"backend reference has no option {key}={choice!r}; {only}")
    check_limits("reference", config)


def _default_num_blocks(config: RunnerConfig, max_model_len: int, block_bytes: int) -> int:
    """Room for every request at full length, within DEFAULT_KV_CACHE_BYTES."""
    blocks_per_request = -(-max_model_len // config.block_size)
    return max(1, min(config.max_num_seqs * blocks_per_request, DEFAULT_KV_CACHE_BYTES // block_bytes))
