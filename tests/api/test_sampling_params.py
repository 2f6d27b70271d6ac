"""SamplingParams: what is refused, what is normalised, and what the engine gets."""

from __future__ import annotations

import math
from typing import Any

import pytest
from isotoken.api.errors import ParameterError
from isotoken.api.text import SamplingParams, TextModel
from isotoken.core.sampling import splitmix64

BAD: list[tuple[str, Any]] = [
    ("max_tokens", -1),
    ("max_tokens", 1.5),
    ("max_tokens", True),
    ("min_tokens", -1),
    ("min_tokens", 17),  # above max_tokens
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", "1"),
    ("temperature", 10**400),  # more than a float can hold
    ("top_k", -2),
    ("top_p", 0),
    ("top_p", 1.01),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("seed", 2**64),
    ("seed", "7"),
    ("presence_penalty", 2.1),
    ("frequency_penalty", -2.1),
    ("repetition_penalty", 0),
    ("logit_bias", {5: 101}),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"9" * 5000: 1}),
    ("logit_bias", {5: 10**400}),
    ("logit_bias", {-1: 1}),
    ("logit_bias", [5]),
    ("allowed_token_ids", []),
    ("allowed_token_ids", [-1]),
    ("bad_words", [""]),
    ("bad_words", 3),
    ("stop", ["ok", ""]),
    ("stop", 7),
    ("stop", ["x"] * 65),
    ("stop", "x" * 1025),
    ("stop_token_ids", ["1"]),
    ("stop_token_ids", 1),
    ("include_stop_str_in_output", 1),
    ("ignore_eos", "no"),
    ("n", 0),
    ("n", 129),
    ("logprobs", -2),
    ("logprobs", True),
    ("prompt_logprobs", 0.5),
    ("echo", None),
    ("skip_special_tokens", None),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_bad_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        SamplingParams(**{field: value})
    assert caught.value.field == field
    assert caught.value.allowed
    assert str(caught.value).startswith(f"{field} = ")
    assert isinstance(caught.value, ValueError)


def resolve(params: SamplingParams, text: TextModel) -> list[Any]:
    encode = lambda word: text.encode(word, add_special_tokens=False)  # noqa: E731
    return params.resolve(vocab_size=text.tokenizer.get_vocab_size(), max_tokens=99, encode=encode)


def test_forms_that_clients_send_are_normalised(text_model: TextModel) -> None:
    params = SamplingParams(stop="a", bad_words=["b"], top_k=-1, logit_bias={"7": 1}, max_tokens=None, temperature=1e-9)  # type: ignore[dict-item]
    (resolved,) = resolve(params, text_model)
    assert params.stop == ("a",)
    assert (resolved.top_k, resolved.logit_bias, resolved.max_tokens, resolved.temperature) == (0, {7: 1.0}, 99, 0.0)
    assert SamplingParams(stop=None, stop_token_ids=None).stop == ()  # type: ignore[arg-type]


def test_choices_draw_with_seeds_of_their_own(text_model: TextModel) -> None:
    resolved = resolve(SamplingParams(n=3, seed=11, prompt_logprobs=1), text_model)
    assert [each.seed for each in resolved] == [11, splitmix64(12), splitmix64(13)]
    assert [each.num_prompt_logprobs for each in resolved] == [1, None, None]
    (negative,) = resolve(SamplingParams(seed=-1), text_model)
    assert negative.seed == 2**64 - 1


def test_without_a_seed_every_submission_draws_one(text_model: TextModel) -> None:
    seeds = {resolve(SamplingParams(), text_model)[0].seed for _ in range(8)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_bad_words_are_spelled_at_a_start_and_after_a_space(text_model: TextModel) -> None:
    (resolved,) = resolve(SamplingParams(bad_words=["fox", "zero one"]), text_model)
    spelled = [text_model.decode(ids) for ids in resolved.bad_words_ids]
    assert spelled == ["fox", " fox", "zero one", " zero one"]


@pytest.mark.parametrize("field", ["logit_bias", "allowed_token_ids", "stop_token_ids"])
def test_ids_outside_the_vocabulary_are_refused(field: str, text_model: TextModel) -> None:
    size = text_model.tokenizer.get_vocab_size()
    value: Any = {size: 1.0} if field == "logit_bias" else [size]
    with pytest.raises(ParameterError, match=f"{field} = {size} .* 0 to {size - 1}"):
        resolve(SamplingParams(**{field: value}), text_model)
