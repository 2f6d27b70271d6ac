"""The backend: what transformers can do behind isotoken's interface, and what it grants of what is asked."""

from __future__ import annotations

import torch
from isotoken.core.capabilities import Capabilities, not_implemented, unsupported
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.decoder_spec import DecoderSpec
from isotoken.core.interfaces import RunnerConfig, RunnerInfo
from isotoken.core.types import Unsupported

from .runner import TransformersRunner

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("eager", "sdpa")
DEFAULT_NUM_LOGITS = 256
DEFAULT_KV_CACHE_BYTES = 2**31  # at most, when the number of rows is left open
_NUM_THREADS = torch.get_num_threads()  # as torch chose it


class TransformersBackend:
    """Runs AutoModelForCausalLM, each request in a row of its own and one request after the other."""

    name = "transformers"
    capabilities = Capabilities(
        dtypes=frozenset(DTYPES),
        devices=frozenset({"cpu", "cuda"} if torch.cuda.is_available() else {"cpu"}),
        prefix_caching=unsupported("a transformers cache is one row for each request; a prefix is copied, not shared"),
        batch_invariant=not_implemented("torch picks its matrix products by the number of query tokens"),
        invariant_to=frozenset({"company", "placement"}),  # each request is computed by itself
    )

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> TransformersRunner:
        """Let transformers load the folder. Raises Unsupported or ValueError before that."""
        self._refuse(config)
        attention = _attention(checkpoint.spec, config)
        info = plan(checkpoint, config)
        return TransformersRunner(
            checkpoint, info, DTYPES[info.dtype], attention=attention, num_threads=config.num_threads or _NUM_THREADS
        )

    def _refuse(self, config: RunnerConfig) -> None:
        """Raise for everything that capabilities do not offer."""
        if config.dtype not in ("auto", *DTYPES):
            raise Unsupported(f"backend transformers computes in {', '.join(DTYPES)}, not in {config.dtype!r}")
        if config.device.split(":")[0] not in ("auto", *self.capabilities.devices):
            here = ", ".join(sorted(self.capabilities.devices))
            raise Unsupported(f"backend transformers runs on {here} here, not on {config.device!r}")
        if config.quantization is not None:
            raise Unsupported(f"backend transformers does not quantise (asked for {config.quantization!r})")
        if config.kv_cache_dtype not in ("auto", config.dtype):
            raise Unsupported(f"backend transformers keeps K/V in the compute dtype, not in {config.kv_cache_dtype!r}")
        if config.tensor_parallel_size != 1:
            raise Unsupported(f"backend transformers uses one device (asked for {config.tensor_parallel_size})")


def plan(checkpoint: Checkpoint, config: RunnerConfig) -> RunnerInfo:
    """Settle what was left open: rows of max_model_len, as many as there are requests or as fit."""
    spec = checkpoint.spec
    max_model_len = spec.resolve_max_model_len(config.max_model_len)
    _check_rope(spec, max_model_len)
    dtype = config.dtype if config.dtype != "auto" else checkpoint.dtype if checkpoint.dtype in DTYPES else "float32"
    row_bytes = max_model_len * spec.num_layers * 2 * spec.kv_size * DTYPES[dtype].itemsize
    asked = config.num_blocks if config.block_size == max_model_len else 0  # else it counts blocks of another size
    num_rows = asked or max(1, min(config.max_num_seqs, DEFAULT_KV_CACHE_BYTES // row_bytes))
    max_num_seqs = min(config.max_num_seqs, num_rows)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return RunnerInfo(
        vocab_size=spec.vocab_size,
        eos_token_ids=checkpoint.eos_token_ids,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_logits=config.max_num_logits or max(max_num_seqs, DEFAULT_NUM_LOGITS),
        block_size=max_model_len,
        num_blocks=num_rows,
        dtype=dtype,
        device=device,
        weight_bytes=checkpoint.num_bytes,
        kv_cache_bytes=num_rows * row_bytes,
    )


def _attention(spec: DecoderSpec, config: RunnerConfig) -> str:
    """Read the one option of this backend: which of transformers' attentions to use."""
    options = dict(config.options)
    attention = options.pop("attention", "eager")
    if options:
        raise ValueError(f"backend transformers has no option {next(iter(options))!r}; it has: attention")
    if attention not in ATTENTIONS:
        raise ValueError(f"option attention is {attention!r}: expected one of {', '.join(ATTENTIONS)}")
    if attention == "sdpa" and spec.attention_softcap is not None:
        raise Unsupported("backend transformers: torch's sdpa knows no soft cap on scores; use attention=eager")
    return attention


def _check_rope(spec: DecoderSpec, max_model_len: int) -> None:
    """Refuse rotations that transformers recomputes from the running length: cached keys would depend on the future."""
    for rope in {layer.rope for layer in spec.layers if layer.rope is not None}:
        if rope.scaling in ("dynamic", "longrope"):
            trained = int(rope.number("original_max_position_embeddings"))
            if max_model_len > trained:
                raise Unsupported(
                    f"backend transformers changes {rope.scaling} rope as a text grows past {trained} tokens; "
                    f"set max_model_len to {trained} at most"
                )
