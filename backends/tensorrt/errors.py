"""What TensorRT says when something fails, and what to do about it."""

from __future__ import annotations

from ...core.types import IsotokenError

ADVICE: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("cuda initialization failure", "no cuda-capable device", "cuda error: 35", "cuda error 100"),
        "the NVIDIA driver is missing, or older than the CUDA that this TensorRT was built for: check nvidia-smi",
    ),
    (
        ("out of memory", "outofmemory", "could not allocate", "cudamalloc", "failed to allocate"),
        "the GPU's memory is full: lower max_num_seqs, max_model_len or the option workspace_mib, or the dtype",
    ),
    (
        ("could not find any implementation", "insufficient workspace", "no implementation"),
        "no kernel was found: raise the option workspace_mib, or choose another dtype",
    ),
    (
        ("version tag", "serialization assertion", "magictag", "deserialization", "incompatible device"),
        "the engine was made by another TensorRT or for another GPU: remove it from the engine cache and build anew",
    ),
    (
        ("unsupported sm", "no kernel image", "target gpu sm"),
        "this TensorRT does not support this GPU: see the support matrix of its version",
    ),
    (
        ("illegal memory access", "unspecified launch failure", "cuda error: 700", "device-side assert"),
        "the GPU context is lost: the process must be started again",
    ),
    (
        ("timing cache",),
        "the timing cache does not fit: remove it from the engine cache, or do not ask for timing_cache=strict",
    ),
)
"""Words in TensorRT's messages (in lower case), and what its user can do."""

NEXT = "set ISOTOKEN_DEBUG=1 and the log level of isotoken.tensorrt to DEBUG to see all that TensorRT says"


class TensorRTError(IsotokenError):
    """TensorRT failed. The message holds what was done, what TensorRT said, and what to do."""


def describe(what: str, messages: list[str]) -> str:
    """Put into words that TensorRT could not do `what`, with its own messages and the advice that fits them."""
    said = list(dict.fromkeys(message.strip() for message in messages if message.strip()))
    lowered = "\n".join(said).lower()
    advice = [advice for words, advice in ADVICE if any(word in lowered for word in words)]
    quoted = "; ".join(said[:6]) + (f"; and {len(said) - 6} more" if len(said) > 6 else "")
    reason = f"TensorRT says: {quoted}" if said else "TensorRT gives no reason"
    return f"backend tensorrt: could not {what}. {reason}. What to do: {'; '.join(advice) or NEXT}"
