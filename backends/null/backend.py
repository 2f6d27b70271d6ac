"""The null backend: grants what is asked and computes nothing."""

from __future__ import annotations

from ...core.capabilities import Capabilities
from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig, RunnerInfo
from ...core.types import Unsupported
from ..limits import check_limits
from .runner import NullRunner
from .words import Words

CAPABILITIES = Capabilities(dtypes=frozenset({"float32"}), devices=frozenset({"cpu"}), batch_invariant=True)

DEFAULT_NUM_LOGITS = 256
MAX_STEP_MS = 60_000.0


class NullBackend:
    """No model at all."""

    name = "null"
    capabilities = CAPABILITIES

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> NullRunner:
        """Read the tokenizer's vocabulary, and no weights. Raises Unsupported or ValueError."""
        info = plan(checkpoint, config)
        words = Words.of(checkpoint.path, info.vocab_size, info.eos_token_ids)
        return NullRunner(info, words, _step_ms(config) / 1000)


def plan(checkpoint: Checkpoint, config: RunnerConfig) -> RunnerInfo:
    """Check what is asked, and grant it."""
    _check(config)
    max_model_len = checkpoint.spec.resolve_max_model_len(config.max_model_len)
    blocks_per_request = -(-max_model_len // config.block_size)
    return RunnerInfo(
        vocab_size=checkpoint.spec.vocab_size,
        eos_token_ids=checkpoint.eos_token_ids,
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_logits=config.max_num_logits or max(config.max_num_seqs, DEFAULT_NUM_LOGITS),
        block_size=config.block_size,
        num_blocks=config.num_blocks or config.max_num_seqs * blocks_per_request,  # they hold nothing
        dtype="float32",
        device="cpu",
    )


def _step_ms(config: RunnerConfig) -> float:
    """Read the option step_ms."""
    given = config.options.get("step_ms", "0")
    try:
        step_ms = float(given)
    except ValueError:
        step_ms = -1.0
    if not 0 <= step_ms <= MAX_STEP_MS:
        raise ValueError(f"backend null: step_ms={given!r} is not a number of milliseconds from 0 to {MAX_STEP_MS:g}")
    return step_ms


def _check(config: RunnerConfig) -> None:
    """Refuse what is not declared, and settings that make no sense."""
    asked = {
        "dtype": (config.dtype, ("auto", "float32")),
        "device": (config.device.split(":")[0], ("auto", "cpu")),
        "quantization": (config.quantization, (None,)),
        "kv_cache_dtype": (config.kv_cache_dtype, ("auto", "float32")),
        "tensor_parallel_size": (config.tensor_parallel_size, (1,)),
    }
    for name, (value, offered) in asked.items():
        if value not in offered:
            raise Unsupported(f"backend null computes nothing, and so not with {name}={value!r} either")
    if unknown := sorted(set(config.options) - {"step_ms"}):
        raise ValueError(f"backend null has no option {unknown[0]!r}; its only one is step_ms")
    _step_ms(config)
    check_limits("null", config)
