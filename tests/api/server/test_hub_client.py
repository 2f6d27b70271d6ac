"""huggingface_hub's client, unchanged, against TGI's routes and OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError


@pytest.fixture(params=["/generate", ""], ids=["generate", "root"])
def client(server: Any, request: pytest.FixtureRequest) -> InferenceClient:
    return InferenceClient(server.url + request.param)


def test_text_generation(client: InferenceClient) -> None:
    text = client.text_generation("the quick", max_new_tokens=6)
    answer = client.text_generation("the quick", max_new_tokens=6, details=True, decoder_input_details=True)
    assert answer.generated_text == text
    assert answer.details is not None
    assert answer.details.finish_reason == "length"
    assert len(answer.details.tokens) == 6
    assert len(answer.details.prefill) == 3


def test_stream(client: InferenceClient) -> None:
    text = client.text_generation("the quick", max_new_tokens=9, do_sample=True, seed=5)
    pieces = list(client.text_generation("the quick", max_new_tokens=9, do_sample=True, seed=5, stream=True))
    assert "".join(pieces) == text
    detailed = client.text_generation("the quick", max_new_tokens=9, do_sample=True, seed=5, stream=True, details=True)
    *_, last = detailed
    assert last.generated_text == text
    assert last.details is not None
    assert (last.details.seed, last.details.generated_tokens) == (5, len(pieces))


def test_errors(client: InferenceClient) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        client.text_generation("a", temperature=-1.0)


def test_chat(server: Any) -> None:
    client = InferenceClient(base_url=server.url + "/v1", api_key="none")
    ask = [{"role": "user", "content": "hi"}]
    whole = client.chat_completion(ask, model="tiny", max_tokens=6, seed=1).choices[0].message.content
    stream = client.chat_completion(ask, model="tiny", max_tokens=6, seed=1, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole
