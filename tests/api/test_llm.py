"""LLM: offline generation in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from isotoken import LLM, SamplingParams
from isotoken.api.errors import ContextLengthError, EngineFailed, ModelNotFound, ParameterError
from isotoken.core.types import Unsupported

GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(model_dir: Path) -> Iterator[LLM]:
    with LLM(model_dir, backend="reference", block_size=4, num_blocks=256, max_num_seqs=8, max_model_len=256) as llm:
        yield llm


def test_every_form_of_prompt_gives_the_same(llm: LLM) -> None:
    text = "The quick brown"
    ids = llm.text.encode(text)
    results = [
        llm.generate(text, GREEDY)[0],
        llm.generate([text], [GREEDY])[0],
        llm.generate(ids, GREEDY)[0],
        llm.generate([ids], GREEDY)[0],
        llm.generate({"prompt": text}, GREEDY)[0],
        llm.generate([{"prompt_token_ids": ids}], GREEDY)[0],
    ]
    assert len({tuple(result.outputs[0].token_ids) for result in results}) == 1
    assert [result.prompt for result in results] == [text, text, None, None, text, None]
    assert all(result.prompt_token_ids == ids for result in results)


def test_results_come_in_the_order_of_the_prompts_with_all_that_was_asked(llm: LLM) -> None:
    prompts = [
        f"{word} fox" for word in ("The", "quick", "brown", "lazy", "zero", "one", "two", "three", "four", "juge")
    ]
    params = [GREEDY.replace(max_tokens=3 + 5 * (i % 3), logprobs=2, prompt_logprobs=0) for i in range(10)]
    results = llm.generate(prompts, params, progress=True)
    for prompt, each, result in zip(prompts, params, results, strict=True):
        (output,) = result.outputs
        assert (result.prompt, len(output.token_ids), output.finish_reason) == (prompt, each.max_tokens, "length")
        assert output.text == llm.text.decode(output.token_ids)
        assert result.finished
        alone = llm.generate(prompt, each)[0]
        assert alone.outputs == result.outputs
        assert output.logprobs is not None
        assert result.prompt_logprobs is not None
        for token_id, logprobs in zip(output.token_ids, output.logprobs, strict=True):
            best = max(logprobs.values(), key=lambda entry: entry.logprob)
            assert logprobs[token_id] == best  # greedy
            assert best.rank == 1
            assert best.decoded_token == llm.text.token_text(token_id)
            assert len(logprobs) == 2
        assert output.cumulative_logprob == pytest.approx(
            sum(entry[token].logprob for entry, token in zip(output.logprobs, output.token_ids, strict=True))
        )
        assert result.prompt_logprobs[0] is None
        assert [next(iter(entry)) for entry in result.prompt_logprobs[1:] if entry] == result.prompt_token_ids[1:]


def test_choices_and_echo(llm: LLM) -> None:
    (result,) = llm.generate("The quick", SamplingParams(n=3, seed=1, max_tokens=6, echo=True, ignore_eos=True))
    assert [output.index for output in result.outputs] == [0, 1, 2]
    assert len({output.text for output in result.outputs}) == 3
    assert all(output.text.startswith("The quick") for output in result.outputs)


def test_chat_takes_one_conversation_or_several(llm: LLM) -> None:
    talk = [{"role": "user", "content": "zero one"}]
    (one,) = llm.chat(talk, GREEDY)
    two = llm.chat([talk, [{"role": "user", "content": "two"}]], GREEDY)
    assert one.prompt == "<|bos|><|user|>zero one<|end|><|assistant|>"
    assert two[0].outputs == one.outputs
    assert two[1].prompt_token_ids != one.prompt_token_ids


def test_a_stream_brings_the_same_and_may_be_left(llm: LLM) -> None:
    params = GREEDY.replace(max_tokens=100)
    (whole,) = llm.generate("The quick", params)
    deltas = list(llm.stream("The quick", params))
    assert len(deltas) == 100
    assert "".join(delta.text for delta in deltas) == whole.outputs[0].text
    stream = llm.stream("The quick", params)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert llm.generate("The quick", params)[0].outputs == whole.outputs


def test_several_threads_may_generate_at_once(llm: LLM) -> None:
    expected = [llm.generate(f"fox {i}", GREEDY)[0].outputs for i in range(4)]
    found: dict[int, object] = {}

    def work(i: int) -> None:
        found[i] = llm.generate(f"fox {i}", GREEDY)[0].outputs

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(4)] == expected


def test_a_prompt_of_one_token_has_a_prompt_score_of_none(llm: LLM) -> None:
    (result,) = llm.generate([10], GREEDY.replace(prompt_logprobs=1))
    assert result.prompt_logprobs == [None]


def test_a_stream_that_fails_says_so(model_dir: Path, faulty_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(faulty_plugin / "site")
    with LLM(model_dir, backend="faulty", num_blocks=64) as llm:
        with pytest.raises(EngineFailed, match="this prompt cannot be computed"):
            list(llm.stream([42] * 3, GREEDY))
        assert len(list(llm.stream([10], GREEDY))) == 12


def test_what_cannot_be_is_said_before_anything_runs(llm: LLM) -> None:
    with pytest.raises(ContextLengthError):
        llm.generate(["fine", "x " * 400], GREEDY)
    with pytest.raises(ParameterError, match="one for each of the 2"):
        llm.generate(["a", "b"], [GREEDY])
    with pytest.raises(ParameterError, match="prompt"):
        llm.generate({"text": "a"}, GREEDY)
    with pytest.raises(ParameterError, match="prompts = 5 is not allowed: a text"):
        llm.generate(5, GREEDY)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_loaded_says_why(model_dir: Path) -> None:
    with pytest.raises(ModelNotFound, match="isotoken-small"):
        LLM("nonesuch")
    with pytest.raises(Unsupported, match="int3"):
        LLM(model_dir, backend="reference", quantization="int3")
    with pytest.raises(ParameterError, match="gpu_blocks"):
        LLM(model_dir, gpu_blocks=3)


def test_a_closed_llm_says_so(model_dir: Path) -> None:
    llm = LLM(model_dir, backend="reference", num_blocks=64)
    llm.close()
    llm.close()
    with pytest.raises(EngineFailed, match="closed"):
        llm.generate("a", GREEDY)
