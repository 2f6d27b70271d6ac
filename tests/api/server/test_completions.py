"""POST /v1/completions, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.api.server.openai_answers import CompletionResponse

GREEDY = {"temperature": 0, "max_tokens": 6}


def complete(server: Any, **body: Any) -> dict[str, Any]:
    """Return an answer that has exactly the documented fields."""
    response = server.post("/v1/completions", body)
    assert response.status_code == 200, response.text
    CompletionResponse.model_validate(response.json(), strict=True)
    return dict(response.json())


def test_answer(server: Any) -> None:
    answer = complete(server, prompt="the quick", **GREEDY)
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "tiny"
    assert answer["system_fingerprint"].startswith("fp_")
    (choice,) = answer["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 6, 9)


def test_prompt_forms_agree(server: Any) -> None:
    ids = server.post("/tokenize", {"prompt": "the quick"}).json()["tokens"]
    expected = complete(server, prompt="the quick", **GREEDY)["choices"][0]["text"]
    for prompt in (["the quick"], ids, [ids]):
        assert complete(server, prompt=prompt, **GREEDY)["choices"][0]["text"] == expected


def test_several_prompts_times_n(server: Any) -> None:
    prompts = ["the quick", "a lazy dog", "naïve"]
    answer = complete(server, prompt=prompts, n=2, seed=7, max_tokens=5)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert answer["usage"]["completion_tokens"] == 30
    for i, prompt in enumerate(prompts):
        alone = complete(server, prompt=prompt, n=2, seed=7, max_tokens=5)
        texts = [choice["text"] for choice in answer["choices"][2 * i : 2 * i + 2]]
        assert texts == [choice["text"] for choice in alone["choices"]]
    assert answer["choices"][0]["text"] != answer["choices"][1]["text"]  # each choice draws with a seed of its own


def test_seed_repeats(server: Any) -> None:
    texts = {complete(server, prompt="the", seed=3, max_tokens=12)["choices"][0]["text"] for _ in range(3)}
    assert len(texts) == 1
    assert complete(server, prompt="the", seed=4, max_tokens=12)["choices"][0]["text"] not in texts


def test_echo_with_logprobs_scores_the_prompt(server: Any) -> None:
    """What lm-eval asks for: no new tokens, and the prompt's own log-probabilities."""
    prompt = "the capital of France is"
    tokens = server.post("/tokenize", {"prompt": prompt, "return_token_strs": True}).json()
    answer = complete(server, prompt=prompt, echo=True, logprobs=2, max_tokens=0)
    (choice,) = answer["choices"]
    assert choice["text"] == prompt
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == tokens["token_strs"]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(value < 0 for value in logprobs["token_logprobs"][1:])
    assert [
        prompt[offset:][: len(token)] for offset, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True)
    ] == (logprobs["tokens"])
    for token, own, top in list(
        zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    )[1:]:
        assert top[token] == own
        assert 2 <= len(top) <= 3
        assert max(top.values()) >= own
    with_one = complete(server, prompt=prompt, echo=True, logprobs=2, max_tokens=1, temperature=0)["choices"][0]
    assert with_one["logprobs"]["token_logprobs"][:-1] == logprobs["token_logprobs"]
    assert len(with_one["logprobs"]["tokens"]) == tokens["count"] + 1
    assert answer["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("skip", [True, False])
def test_offsets_point_into_the_text(server: Any, skip: bool) -> None:
    words = server.post("/tokenize", {"prompt": "a naïve 🙂 smile"}).json()["tokens"]
    special = server.post("/tokenize", {"messages": [{"role": "user", "content": "hi"}]}).json()["tokens"]
    body = {"prompt": special + words, "echo": True, "logprobs": 0, "max_tokens": 0, "skip_special_tokens": skip}
    choice = complete(server, **body)["choices"][0]
    text, offsets = choice["text"], choice["logprobs"]["text_offset"]
    assert ("<|user|>" in text) is not skip
    for token, start, end in zip(choice["logprobs"]["tokens"], offsets, [*offsets[1:], len(text)], strict=True):
        if token in ("<|user|>", "<|end|>", "<|assistant|>") and skip:
            assert start == end
        elif not token.startswith("bytes:"):
            assert text[start:end] == token


def test_echo_of_token_ids(server: Any) -> None:
    ids = server.post("/tokenize", {"prompt": "naïve café"}).json()["tokens"]
    answer = complete(server, prompt=[ids, ids[:2]], echo=True, max_tokens=0)
    assert answer["choices"][0]["text"] == "naïve café"


def test_logprobs_of_new_tokens(server: Any) -> None:
    choice = complete(server, prompt="the", logprobs=3, return_token_ids=True, **GREEDY)["choices"][0]
    logprobs = choice["logprobs"]
    assert len(choice["token_ids"]) == len(logprobs["tokens"]) == 6
    assert choice["prompt_token_ids"] == server.post("/tokenize", {"prompt": "the"}).json()["tokens"]
    for token, own, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert max(top, key=top.__getitem__) == token  # greedy
        assert max(top.values()) == own
        assert len(top) == 3
    named = complete(server, prompt="the", logprobs=0, return_tokens_as_token_ids=True, **GREEDY)["choices"][0]
    assert named["logprobs"]["tokens"] == [f"token_id:{token_id}" for token_id in choice["token_ids"]]


def test_prompt_logprobs(server: Any) -> None:
    choice = complete(server, prompt="the quick", prompt_logprobs=1, **GREEDY)["choices"][0]
    first, *others = choice["prompt_logprobs"]
    assert first is None
    ids = server.post("/tokenize", {"prompt": "the quick"}).json()["tokens"]
    for token_id, position in zip(ids[1:], others, strict=True):
        own = position[str(token_id)]
        assert own["rank"] >= 1
        assert own["logprob"] < 0
        assert 1 in {item["rank"] for item in position.values()}
    assert complete(server, prompt=ids[:1], prompt_logprobs=1, **GREEDY)["choices"][0]["prompt_logprobs"] == [None]


def test_stop(server: Any) -> None:
    whole = complete(server, prompt="the quick", seed=1, max_tokens=24)["choices"][0]["text"]
    stop = whole[4:6]
    choice = complete(server, prompt="the quick", seed=1, max_tokens=24, stop=[stop])["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert choice["text"] == whole[: whole.index(stop)]
    kept = complete(server, prompt="the quick", seed=1, max_tokens=24, stop=stop, include_stop_str_in_output=True)
    assert kept["choices"][0]["text"] == choice["text"] + stop


def test_stop_token_ids_and_min_tokens(server: Any) -> None:
    ids = complete(server, prompt="the quick", return_token_ids=True, **GREEDY)["choices"][0]["token_ids"]
    choice = complete(server, prompt="the quick", stop_token_ids=[ids[2]], return_token_ids=True, **GREEDY)["choices"][
        0
    ]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ids[2])
    assert choice["token_ids"] == ids[: ids.index(ids[2]) + 1]
    longer = complete(
        server, prompt="the quick", stop_token_ids=[ids[0]], min_tokens=3, return_token_ids=True, **GREEDY
    )
    assert ids[0] not in longer["choices"][0]["token_ids"][:3]


@pytest.mark.parametrize(
    "extra",
    [
        {"allowed_token_ids": [70, 71]},
        {"logit_bias": {"70": 100}},
        {"bad_words": ["a"]},
        {"top_k": 1},
        {"min_p": 1.0},
        {"repetition_penalty": 2.0, "presence_penalty": 1.5, "frequency_penalty": 1.0},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_sampling_extras_change_the_answer(server: Any, extra: dict[str, Any]) -> None:
    body = {"prompt": "the", "seed": 5, "max_tokens": 24, "return_token_ids": True, "ignore_eos": True}
    plain = complete(server, **body)["choices"][0]["token_ids"]
    ids = complete(server, **body, **extra)["choices"][0]["token_ids"]
    if "allowed_token_ids" in extra:
        assert set(ids) <= {70, 71}
    elif "logit_bias" in extra:
        assert set(ids) == {70}
    elif "bad_words" in extra:
        assert set(server.post("/tokenize", {"prompt": "a"}).json()["tokens"]).isdisjoint(ids)
    elif "top_k" in extra or "min_p" in extra:
        assert ids == complete(server, **body, temperature=0)["choices"][0]["token_ids"]
    else:
        assert ids != plain


def test_truncate_prompt_tokens(server: Any) -> None:
    ids = server.post("/tokenize", {"prompt": "the quick brown fox"}).json()["tokens"]
    cut = complete(server, prompt="the quick brown fox", truncate_prompt_tokens=2, return_token_ids=True, **GREEDY)
    assert cut["choices"][0]["prompt_token_ids"] == ids[-2:]
    fitted = complete(server, prompt=[70] * 5000, truncate_prompt_tokens=-1, **GREEDY)
    assert fitted["usage"]["prompt_tokens"] == 2048 - GREEDY["max_tokens"]


def test_cached_tokens_are_told(server: Any) -> None:
    prompt = [70 + i % 40 for i in range(100)]
    assert complete(server, prompt=prompt, **GREEDY)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert complete(server, prompt=prompt, **GREEDY)["usage"]["prompt_tokens_details"]["cached_tokens"] == 96
    salted = complete(server, prompt=prompt, cache_salt="another tenant", **GREEDY)
    assert salted["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_harmless_fields_are_accepted(server: Any) -> None:
    neutral = {
        "user": "u",
        "best_of": 1,
        "suffix": None,
        "logit_bias": None,
        "stream": None,
        "response_format": {"type": "text"},
        "use_beam_search": False,
        "unheard_of": {"a": [1]},
        "priority": 3,
        "model": "tiny",
        "seed": None,
    }
    complete(server, prompt="the", **neutral, **GREEDY)


def test_ids(server: Any) -> None:
    response = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}, headers={"x-request-id": "mine"})
    assert response.headers["x-request-id"] == "mine"
    assert response.json()["id"] == "cmpl-mine"
    assert int(response.headers["openai-processing-ms"]) >= 0
    named = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "request_id": "yours"})
    assert named.json()["id"] == "cmpl-yours"
    assert len(named.headers["x-request-id"]) == 32
    forged = server.post(
        "/v1/completions", {"prompt": "a", "max_tokens": 1, "request_id": "a\nanother line of the log"}
    )
    assert forged.json()["id"] == "cmpl-" + forged.headers["x-request-id"]
