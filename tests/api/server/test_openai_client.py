"""OpenAI's own Python client, unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

ASK: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id == "tiny"
    assert model.model_extra is not None
    assert model.model_extra["max_model_len"] == 2048


def test_completion(client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model="tiny", prompt="the quick", max_tokens=5, seed=1, logprobs=2, n=2, stop=["zzz"], echo=True
    )
    assert completion.id.startswith("cmpl-")
    assert len(completion.choices) == 2
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 10
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert len(logprobs.token_logprobs) == 8
    assert completion._request_id


def test_completion_stream(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt="the quick", max_tokens=9, seed=1).choices[0].text
    stream = client.completions.create(model="tiny", prompt="the quick", max_tokens=9, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=ASK,
        max_completion_tokens=5,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        user="someone",
    )
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content[0].top_logprobs) == 2
    assert choice.logprobs.content[0].bytes is not None


def test_chat_stream_with_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=ASK, max_completion_tokens=9, seed=1)
    stream = client.chat.completions.create(
        model="tiny",
        messages=ASK,
        max_completion_tokens=9,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage == whole.usage


def test_chat_stream_helper(client: openai.OpenAI) -> None:
    ends = {"logit_bias": {"0": 100}, "extra_body": {"min_tokens": 4}}  # the helper takes no answer without an end
    with client.chat.completions.stream(model="tiny", messages=ASK, **ends) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text != ""
    assert final.choices[0].finish_reason == "stop"


def test_vllm_extras(client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model="tiny", prompt="the", max_tokens=4, extra_body={"top_k": 1, "return_token_ids": True, "min_tokens": 2}
    )
    extra = completion.choices[0].model_extra
    assert extra is not None
    assert len(extra["token_ids"]) == 4
    assert extra["stop_reason"] is None


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt", prompt="a")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="tiny", messages=ASK, temperature=-1)
    assert bad.value.param == "temperature"
    assert bad.value.type == "invalid_request_error"
    assert bad.value.request_id
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="tiny", prompt=[70] * 2048)
    assert long.value.code == "context_length_exceeded"


def test_the_async_client_leaves_early(server: Any) -> None:
    """Breaking out of a stream closes the connection, which frees the request's blocks."""
    aborted = server.metric("llm_choices_finished_total", '{reason="abort"}')

    async def leave() -> None:
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
            stream = await client.completions.create(
                model="tiny", prompt="a", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
            )
            async for _ in stream:
                break
            await stream.close()

    asyncio.run(leave())
    server.wait_for(lambda: server.metric("llm_choices_finished_total", '{reason="abort"}') == aborted + 1)
    server.wait_for(lambda: server.metric("llm_kv_blocks_used") == 0)
