"""Every backend computes every family as transformers does: logits, and greedy tokens through the whole engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.engine import Engine
from isotoken.core.interfaces import ModelRunner, RunnerConfig
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.scheduler import ContinuousScheduler, SchedulerConfig
from isotoken.core.types import DecodeParams, Request, RequestOutput
from isotoken.plugins.manager import Plugins

from .driver import run_all
from .families import FAMILIES, NUM_NEW_TOKENS, PROMPT_LENGTHS, Case

BACKENDS = ("reference", "torch", "onnxruntime", "native")
TOLERANCE = 2e-5  # of the largest logit

Load = Callable[..., ModelRunner]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load()


@pytest.fixture(params=BACKENDS)
def load(request: pytest.FixtureRequest, plugins: Plugins) -> Iterator[Load]:
    """A function that loads a case in float32 on the CPU, on one of the backends."""
    runners = []

    def load_case(case: Case, **settings: object) -> ModelRunner:
        fixed = {"dtype": "float32", "device": "cpu", "max_model_len": case.max_model_len, "num_threads": 1}
        backend = plugins.backends.get_factory(request.param)()
        runners.append(backend.load(Checkpoint.open(case.folder), RunnerConfig(**{**fixed, **settings})))
        return runners[-1]

    yield load_case
    for runner in runners:
        runner.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_every_position_in_ragged_chunks(load: Load, family: str, family_case: Callable[[str], Case]) -> None:
    case = family_case(family)
    runner = load(case, max_num_seqs=8, max_num_batched_tokens=96, num_blocks=64)
    answers = run_all(runner, case.sequences, max_chunk=20)
    bound = TOLERANCE * max(abs(logits).max() for logits in case.logits)
    for length, answer, expected in zip(PROMPT_LENGTHS, answers, case.logits, strict=True):
        difference = abs(answer - expected).max(axis=-1)
        assert difference.max() <= bound, f"prompt of {length}: off by {difference.max()} at {difference.argmax()}"


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_through_the_engine(load: Load, family: str, family_case: Callable[[str], Case]) -> None:
    """All prompts at once, in chunks of up to 40 tokens mixed with decodes."""
    case = family_case(family)
    runner = load(case, max_num_seqs=6, max_num_batched_tokens=40, num_blocks=48)
    assert generate(runner, case.prompts) == [sequence[-NUM_NEW_TOKENS:] for sequence in case.sequences]


@pytest.mark.parametrize("block_size", [1, 5, 64])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_greedy_tokens_with_other_block_sizes(
    load: Load, family: str, block_size: int, family_case: Callable[[str], Case]
) -> None:
    case = family_case(family)
    runner = load(case, max_num_seqs=4, max_num_batched_tokens=64, block_size=block_size)
    assert generate(runner, case.prompts) == [sequence[-NUM_NEW_TOKENS:] for sequence in case.sequences]


def test_a_checkpoint_may_be_in_bfloat16(load: Load, family_case: Callable[[str], Case]) -> None:
    case = family_case("llama-tied-sharded-bf16")
    checkpoint = Checkpoint.open(case.folder)
    assert checkpoint.dtype == "bfloat16"
    assert len(list(case.folder.glob("*.safetensors"))) > 3
    assert load(case, num_blocks=4).info.dtype == "float32"


def generate(runner: ModelRunner, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy continuations by the real engine, scheduler and cache."""
    kv_cache = PagedKVCache(runner.info, KVCacheConfig())
    scheduler = ContinuousScheduler(kv_cache, SchedulerConfig.from_info(runner.info))
    tokens: dict[str, list[int]] = {str(i): [] for i in range(len(prompts))}

    def publish(outputs: list[RequestOutput]) -> None:
        for output in outputs:
            assert output.error is None
            tokens[output.request_id] += output.token_ids

    engine = Engine(runner, scheduler, kv_cache, publish=publish)
    params = DecodeParams(max_tokens=NUM_NEW_TOKENS, temperature=0.0, ignore_eos=True)
    for i, prompt in enumerate(prompts):
        engine.add(Request(id=str(i), token_ids=list(prompt), num_prompt_tokens=len(prompt), params=params))
    engine.run()
    assert kv_cache.num_free_blocks == kv_cache.num_blocks
    return list(tokens.values())
