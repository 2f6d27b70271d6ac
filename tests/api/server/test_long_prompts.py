"""Long texts are tokenized in threads, by calls that release the interpreter: no stream waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from isotoken.api.server.openai_schemas import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest
from isotoken.api.server.prompts import Prompter
from isotoken.api.server.settings import ServerSettings
from isotoken.api.server.tokenization import detokenize, tokenize
from isotoken.api.text import TextModel

LONG = "the quick brown fox " * 2_000  # 40,000 characters
FREE = {"encode_batch", "encode_batch_fast"}  # of the library's ways to tokenize, those that release the lock


class Watched:
    """A tokenizer that notes in which thread it was given work, and by which call."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.encodings: list[tuple[str, threading.Thread, int]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("encode") or name.startswith("async_encode"):
            return lambda *args, **more: self._encode(name, *args, **more)
        return getattr(self._tokenizer, name)

    def _encode(self, name: str, *args: Any, **more: Any) -> Any:
        self.encodings.append((name, threading.current_thread(), sum(map(len, args[0]))))
        return getattr(self._tokenizer, name)(*args, **more)


@pytest.fixture
def watched(tiny_model: Path) -> tuple[TextModel, Watched]:
    text = TextModel.load(tiny_model)
    text.tokenizer = watched = Watched(text.tokenizer)
    return text, watched


def service(text: TextModel) -> Any:
    """What the routes need of a service."""
    info = SimpleNamespace(max_model_len=10**6, vocab_size=10**6)
    prompter = Prompter(text, 10**6, ServerSettings())
    model = SimpleNamespace(engine=SimpleNamespace(info=info), text=text, prompter=prompter)
    return SimpleNamespace(find=lambda name: model, check_use=lambda name, exchange: None, prompter=prompter)


REQUEST: Any = SimpleNamespace(scope={"state": {"exchange": None}})
MESSAGES = [{"role": "user", "content": LONG}]
WAYS: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    "completion": lambda s: s.prompter.completion(CompletionRequest(prompt=LONG)),
    "several prompts": lambda s: s.prompter.completion(CompletionRequest(prompt=[LONG[:3000]] * 12)),
    "truncated": lambda s: s.prompter.completion(CompletionRequest(prompt=LONG, truncate_prompt_tokens=5)),
    "chat": lambda s: s.prompter.chat(ChatRequest(messages=MESSAGES), 5),
    "tgi": lambda s: s.prompter.plain(LONG, field="inputs"),
    "tokenize": lambda s: tokenize.fn(
        request=REQUEST, data=TokenizeRequest(prompt=LONG, return_token_strs=True), service=s
    ),
    "tokenize a conversation": lambda s: tokenize.fn(
        request=REQUEST, data=TokenizeRequest(messages=MESSAGES), service=s
    ),
    "tokenize with offsets": lambda s: tokenize.fn(request=REQUEST, data=TokenizeRequest(inputs=LONG), service=s),
}


@pytest.mark.parametrize("way", WAYS)
def test_long_texts_are_tokenized_beside_the_event_loop(way: str, watched: tuple[TextModel, Watched]) -> None:
    text, tokenizer = watched
    asyncio.run(WAYS[way](service(text)))
    assert tokenizer.encodings
    for name, thread, _ in tokenizer.encodings:
        assert name in FREE, f"{name} holds the interpreter's lock for as long as it takes"
        assert thread is not threading.main_thread()
    assert sum(size for _, _, size in tokenizer.encodings) >= 34_000


def test_token_texts_are_looked_up_there_too(watched: tuple[TextModel, Watched], monkeypatch: Any) -> None:
    text, _ = watched
    threads: set[threading.Thread] = set()
    token_bytes = text.token_bytes

    def noted(token_id: int) -> bytes:
        threads.add(threading.current_thread())
        return token_bytes(token_id)

    served = service(text)  # which looks at some tokens as it is made
    monkeypatch.setattr(text, "token_bytes", noted)
    asked = TokenizeRequest(prompt=LONG, return_token_strs=True)
    answer = asyncio.run(tokenize.fn(request=REQUEST, data=asked, service=served))
    assert len(answer["token_strs"]) == answer["count"] > 2_000
    assert threads
    assert threading.main_thread() not in threads


def test_the_loop_runs_on_meanwhile(watched: tuple[TextModel, Watched]) -> None:
    """While a text is tokenized, and until it is, the event loop can do all that it is asked to."""
    text, tokenizer = watched
    begun, may_end = threading.Event(), threading.Event()
    encode = tokenizer._encode

    def slow(*args: Any, **more: Any) -> Any:
        begun.set()
        assert may_end.wait(60)
        return encode(*args, **more)

    tokenizer._encode = slow  # type: ignore[method-assign]

    async def main() -> None:
        asked = asyncio.create_task(service(text).prompter.completion(CompletionRequest(prompt=LONG)))
        while not begun.is_set():
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not asked.done()
        may_end.set()
        (prompt,) = await asked
        assert len(prompt.token_ids) > 2_000

    asyncio.run(main())


def test_short_texts_stay(watched: tuple[TextModel, Watched]) -> None:
    text, tokenizer = watched
    asyncio.run(service(text).prompter.completion(CompletionRequest(prompt="the quick")))
    assert [thread for _, thread, _ in tokenizer.encodings] == [threading.main_thread()]


def test_long_lists_of_tokens_become_text_there(watched: tuple[TextModel, Watched]) -> None:
    text, _ = watched
    threads: set[threading.Thread] = set()
    decode = text.decode

    def noted(*args: Any, **more: Any) -> str:
        threads.add(threading.current_thread())
        return decode(*args, **more)

    text.decode = noted  # type: ignore[method-assign]
    asyncio.run(detokenize.fn(request=REQUEST, data=DetokenizeRequest(tokens=[40] * 20_000), service=service(text)))
    assert threads and threading.main_thread() not in threads


def test_more_messages_than_tokens_are_refused_before_the_template_sees_them(server: Any) -> None:
    messages = [{"role": "user", "content": ""}] * 200_000
    response = server.post("/v1/chat/completions", {"messages": messages, "truncate_prompt_tokens": 10})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")
