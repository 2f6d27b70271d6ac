"""The contracts of the core: what a backend implements, and the parts of the core that can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .batch import Batch, Sampled, SamplingRows
from .capabilities import Capabilities
from .checkpoint import Checkpoint
from .types import Request, RequestOutput, Scheduled

Logits = Any
"""[L, vocab_size]: whatever the runner's own sampler reads, else anything that np.asarray turns into floats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """What is asked of a runner. RunnerInfo says what was granted; nobody writes back into this."""

    dtype: str = "auto"  # compute dtype; "auto": the checkpoint's where the backend computes in it, else float32
    device: str = "auto"
    max_model_len: int = 0  # 0: what the model was made for
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    max_num_logits: int = 0  # 0: the runner's choice
    block_size: int = 16  # a wish
    num_blocks: int = 0  # 0: fill memory_fraction of the device's free memory, within reason
    memory_fraction: float = 0.9
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int = 1
    num_threads: int = 0  # CPU threads; 0: the runtime's default
    options: Mapping[str, str] = field(default_factory=dict)  # backend-specific; an unknown key is a ValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerInfo:
    """What load() settled on. Scheduler and KV cache obey it."""

    vocab_size: int
    eos_token_ids: frozenset[int]
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_logits: int  # logits rows in one forward; at least max_num_seqs
    block_size: int
    num_blocks: int
    max_cached_tokens: int = 0  # that memory has room for, all blocks together; 0: for every block full
    dtype: str
    device: str
    asynchronous: bool = False  # forward returns before the device is done
    weight_bytes: int = 0
    kv_cache_bytes: int = 0
    verify_cost: float = 0.0  # of one more token in a step, in parts of a step of one token; 0: not known


class Sampler(Protocol):
    """Draws tokens. Must equal HostSampler on the same float32 logits where the best two scores differ by over 1e-5."""

    def sample(self, logits: Logits, rows: SamplingRows) -> Sampled:
        """Draw (or score) one token for each of the L rows. The only call that waits for the device.

        A row whose logits hold NaN, once they are edited, gets NOT_A_NUMBER instead of a token: it fails its request.
        """
        ...


class ModelRunner(Protocol):
    """A loaded model and its K/V memory on one or more devices. Not thread-safe; used by one thread."""

    @property
    def info(self) -> RunnerInfo:
        """What load() settled on."""
        ...

    @property
    def sampler(self) -> Sampler | None:
        """A sampler for this runner's own logits, or None to use the host sampler, which is plain and slow.

        A runner whose logits np.asarray can read returns core.fast_sampler.FastSampler(): the same tokens, and a
        hundredth of the time where the vocabulary is large.
        """
        ...

    def forward(self, batch: Batch) -> Logits:
        """Copy batch.block_copies, write this step's K/V to batch.slot_mapping, attend causally over block_table.

        Returns logits [L, vocab_size] (valid until the next forward), L may be 0. May return before the device is
        done; Sampler.sample waits. Never keeps a reference to the batch. Calling it again with the same batch gives
        the same result, so that the engine can find a faulty request by running the requests apart.
        Raises Unsupported rather than approximate.
        """
        ...

    def close(self) -> None:
        """Give back the memory. Calling it twice is harmless."""
        ...


class Backend(Protocol):
    """A way to run models. Constructing one is cheap and imports its engine; load() does the work."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do here and now, and why not the rest."""
        ...

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> ModelRunner:
        """Load the weights and set up K/V memory. Raises Unsupported or ValueError before it allocates anything big."""
        ...


@runtime_checkable
class AheadOfTime(Protocol):
    """A backend that makes a program of a model for one device, and keeps it: before load(), which else does it."""

    def build(self, checkpoint: Checkpoint, config: RunnerConfig, on_progress: Callable[[str, float], None]) -> Path:
        """Make what load() would with the same arguments, unless it is there already, and return where it is kept.

        Calls on_progress with what is being done and the share of the whole that is (0 to 1), from any thread; what
        that raises ends the build and comes out here. Raises otherwise as load() does.
        """
        ...


class KVCache(Protocol):
    """Host bookkeeping for num_blocks blocks. Owns block ids, never memory."""

    @property
    def block_size(self) -> int:
        """Tokens a block holds."""
        ...

    @property
    def num_blocks(self) -> int:
        """All blocks, free or not."""
        ...

    @property
    def num_free_blocks(self) -> int:
        """Blocks that allocate could hand out, cached ones that would be evicted included."""
        ...

    def match_prefix(self, request: Request) -> int:
        """Attach the longest published prefix and set num_computed_tokens; leaves at least one token to compute.

        Returns the number of tokens found.
        """
        ...

    def allocate(self, request: Request, num_tokens: int) -> bool:
        """Grow the request to hold num_tokens. All or nothing; block tables are append-only."""
        ...

    def commit(self, request: Request) -> None:
        """Publish blocks that became full of accepted, computed tokens."""
        ...

    def free(self, request: Request) -> None:
        """Release every block and set num_computed_tokens to 0. Published blocks stay matchable until evicted (LRU).

        block_ids becomes a new empty list, never a cleared one: that tells whoever mirrors a table that it began anew.
        """
        ...

    def take_block_copies(self) -> list[tuple[int, int, int]]:
        """(from block, to block, tokens) to do before the next forward; a cache that shares blocks has none.

        A block copied to itself says how many of its tokens are still needed, and that another request may go on behind
        them; only a runner with max_cached_tokens is told so.
        """
        ...

    def check(self, requests: Sequence[Request]) -> None:
        """Raise AssertionError if free, referenced and total blocks disagree, `requests` being all that hold blocks."""
        ...


class Scheduler(Protocol):
    """Decides what each step computes, and folds the results back in."""

    @property
    def has_work(self) -> bool:
        """Whether any request is running or waiting."""
        ...

    @property
    def num_running(self) -> int:
        """Requests that hold a row."""
        ...

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, preempted ones included."""
        ...

    @property
    def num_preemptions(self) -> int:
        """Since construction, as the next two."""
        ...

    @property
    def num_prefix_queries(self) -> int:
        """Prompt tokens looked up in the prefix cache when their request was first admitted."""
        ...

    @property
    def num_prefix_hits(self) -> int:
        """Of those, the tokens found."""
        ...

    def add(self, request: Request) -> None:
        """Queue it. Raises ValueError if it could never fit the cache or max_model_len."""
        ...

    def abort(self, request_id: str) -> bool:
        """Drop the request and free its blocks, whatever its state. False if it is not here (any more)."""
        ...

    def schedule(self) -> list[Scheduled]:
        """Give requests tokens so that num_computed_tokens catches up with the known and drafted length.

        An empty plan while has_work means that nothing can run now, which only requests with a past deadline may cause:
        the engine then calls update with nothing sampled.
        """
        ...

    def update(self, plan: Sequence[Scheduled], sampled: Sampled) -> list[RequestOutput]:
        """Fold sampled tokens in. Afterwards num_computed_tokens == len(token_ids) - 1 for every sampled request.

        Also reports requests that ended without being scheduled (a past deadline).
        """
        ...

    def fail(self, request: Request, error: str) -> RequestOutput:
        """End a request with FinishReason.ERROR and free its blocks, num_computed_tokens set to 0 before.

        The step that failed may not have carried out the block copies that it counts on.
        """
        ...


class Drafter(Protocol):
    """Guesses continuations. Its quality changes speed, never output."""

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return the guesses that follow token_ids: a list, maybe empty, for each request. Mutates no request.

        Guesses are token ids of the model's vocabulary. A drafter that raises, here or in release, or guesses anything
        else is closed and done without from then on: the error is logged, and counted in StepStats.
        """
        ...

    def release(self, request_id: str) -> None:
        """Forget a request that ended. Unknown ids are ignored."""
        ...

    def close(self) -> None:
        """Give back what it holds. Calling it twice is harmless."""
        ...


@runtime_checkable
class PricedDrafter(Protocol):
    """A drafter that says what its guesses cost. One that does not is taken to guess for nothing."""

    @property
    def propose_cost(self) -> float:
        """What one guess more for each request of a step costs, in parts of a step of the model."""
        ...


class Exporter(Protocol):
    """Writes a model in another format, for programs that know nothing of isotoken."""

    def export(
        self, checkpoint: Checkpoint, folder: Path, options: Mapping[str, str], on_progress: Callable[[str], None]
    ) -> Sequence[Path]:
        """Write the model into a folder, which need not exist, and return the files written, the main one first.

        `options` are the exporter's own; an unknown key or value is a ValueError that lists what there is. Calls
        on_progress with what is being done, in a few words. Raises Unsupported for what the format cannot express.
        """
        ...
