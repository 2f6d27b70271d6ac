"""POST /v1/chat/completions, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.api.server.openai_answers import ChatResponse

ASK = [{"role": "user", "content": "hi"}]
GREEDY = {"temperature": 0, "max_completion_tokens": 6}


def chat(server: Any, **body: Any) -> dict[str, Any]:
    """Return an answer that has exactly the documented fields."""
    response = server.post("/v1/chat/completions", {"messages": ASK, **body})
    assert response.status_code == 200, response.text
    ChatResponse.model_validate(response.json(), strict=True)
    return dict(response.json())


def test_answer(server: Any) -> None:
    answer = chat(server, **GREEDY)
    assert answer["id"].startswith("chatcmpl-")
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    prompt = "<|user|>hi<|end|><|assistant|>"
    raw = {"prompt": prompt, "temperature": 0, "max_tokens": 6}
    same = server.post("/v1/completions", raw).json()
    assert answer["choices"][0]["message"]["content"] == same["choices"][0]["text"]
    assert answer["usage"]["prompt_tokens"] == same["usage"]["prompt_tokens"]


def test_without_a_limit_the_context_is_the_limit(server: Any) -> None:
    messages = [{"role": "user", "content": "0" * 2000}]  # a token each
    answer = chat(server, messages=messages, temperature=0, ignore_eos=True)
    assert answer["usage"]["total_tokens"] == 2048
    assert answer["choices"][0]["finish_reason"] == "length"


def test_n_and_seed(server: Any) -> None:
    answer = chat(server, n=3, seed=1, max_tokens=8)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert len(set(texts)) == 3
    assert texts == [c["message"]["content"] for c in chat(server, n=3, seed=1, max_tokens=8)["choices"]]


def test_logprobs(server: Any) -> None:
    answer = chat(server, logprobs=True, top_logprobs=2, return_token_ids=True, **GREEDY)
    (choice,) = answer["choices"]
    content = choice["logprobs"]["content"]
    assert len(content) == len(choice["token_ids"]) == answer["usage"]["completion_tokens"]
    for item in content:
        assert item["logprob"] == item["top_logprobs"][0]["logprob"]  # greedy
        assert len(item["top_logprobs"]) == 2
    text = b"".join(bytes(item["bytes"]) for item in content).decode("utf-8", "replace")
    assert text == choice["message"]["content"]


def test_content_parts_and_roles(server: Any) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    joined = chat(server, messages=[{"role": "user", "content": parts}], return_token_ids=True, **GREEDY)
    plain = chat(server, messages=[{"role": "user", "content": "a\nb"}], return_token_ids=True, **GREEDY)
    assert joined["prompt_token_ids"] == plain["prompt_token_ids"]
    developer = chat(server, messages=[{"role": "developer", "content": "x"}, *ASK], return_token_ids=True, **GREEDY)
    system = chat(server, messages=[{"role": "system", "content": "x"}, *ASK], return_token_ids=True, **GREEDY)
    assert developer["prompt_token_ids"] == system["prompt_token_ids"]


def test_template_switches(server: Any) -> None:
    bare = chat(server, add_generation_prompt=False, return_token_ids=True, **GREEDY)
    usual = chat(server, return_token_ids=True, **GREEDY)
    assert usual["prompt_token_ids"][:-1] == bare["prompt_token_ids"]
    begun = [*ASK, {"role": "assistant", "content": "the qu"}]
    going_on = chat(server, messages=begun, continue_final_message=True, return_token_ids=True, echo=True, **GREEDY)
    text = server.post("/detokenize", {"tokens": going_on["prompt_token_ids"]}).json()["prompt"]
    assert text.endswith("<|assistant|>the qu")
    assert going_on["choices"][0]["message"]["content"].startswith("the qu")


def test_neutral_values_are_fine(server: Any) -> None:
    neutral = {
        "tools": [],
        "tool_choice": "none",
        "functions": None,
        "response_format": {"type": "text"},
        "parallel_tool_calls": True,
        "service_tier": "auto",
        "metadata": {"a": "b"},
        "store": False,
        "modalities": ["text"],
        "verbosity": "low",
        "logprobs": False,
    }
    chat(server, **neutral, **GREEDY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("structural_tag", {"structures": []}),
        ("audio", {"voice": "alloy"}),
        ("modalities", ["text", "audio"]),
        ("best_of", 2),
        ("use_beam_search", True),
        ("logits_processors", ["x"]),
        ("chat_template", "{{ messages }}"),
    ],
)
def test_what_would_change_the_answer_is_refused(server: Any, field: str, value: Any) -> None:
    response = server.post("/v1/chat/completions", {"messages": ASK, field: value})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (field, "unsupported_parameter")
    assert field in error["message"]
