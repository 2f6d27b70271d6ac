"""What a backend can do, and why it cannot do the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A capability that is absent, who could change that, and why. Falsy."""

    kind: Literal["unsupported", "not_implemented"]
    reason: str
    issue: str = ""

    def __bool__(self) -> bool:
        return False


Support = Literal[True] | Unavailable

Aspect = Literal["company", "placement", "chunking", "threads", "recomputation"]
"""What the bits of a logit may or may not depend on: the other requests of the batch; the row or blocks and their place
in the batch; how a prompt was cut into chunks; the number of threads; whether a position was first computed as part of
a prompt or as a decode (so whether a preempted request goes on bit by bit)."""


def unsupported(reason: str) -> Unavailable:
    """Declare that the runtime cannot do this, and why."""
    return Unavailable("unsupported", reason)


def not_implemented(reason: str, issue: str = "") -> Unavailable:
    """Declare that the backend does not do this yet, and where that is tracked."""
    return Unavailable("not_implemented", reason, issue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Read by the engine to plan and by the conformance suite to judge. An absence must be said."""

    dtypes: frozenset[str]  # compute dtypes: "float64", "float32", "bfloat16", "float16"
    devices: frozenset[str]  # device types that it can use here and now: "cpu", "cuda"
    missing_devices: Mapping[str, str] = field(default_factory=dict, hash=False)  # what others lack
    device_dtypes: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)  # where one has fewer dtypes
    weight_only_dtype: str = (
        ""  # what dtype "auto" is for weights of fewer bits alone, where they were of 16; "": as else
    )
    second_choice: str = ""  # why backend "auto" takes another engine first where one is installed; "": it does not
    quantizations: frozenset[str] = frozenset()  # names accepted in RunnerConfig.quantization
    kv_cache_dtypes: frozenset[str] = frozenset()  # names accepted in RunnerConfig.kv_cache_dtype besides "auto"
    max_tensor_parallel_size: int = 1
    chunked_prefill: Support = True  # query tokens after cached context in one forward
    prefix_caching: Support = True  # one block may appear in several block tables
    block_copies: Support = True  # Batch.block_copies is carried out before the forward
    speculative: Support = True  # more than one logits row per request per forward
    prompt_logprobs: Support = True  # logits rows for prompt positions
    batch_invariant: Support = field(  # logits of a position bitwise equal however it was computed
        default_factory=lambda: not_implemented("bitwise batch invariance is not claimed")
    )
    invariant_to: frozenset[Aspect] = frozenset()  # the aspects of it that hold where batch_invariant is absent


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A known failing conformance test. It must fail: passing or matching nothing is an error."""

    test: str  # the test's id in SPEC.md, such as "INV-3", or a node id glob
    reason: str
    issue: str = ""
