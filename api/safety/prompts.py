"""Where a request's body holds text that a model would read, and how that text is put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..server.openai_schemas import ChatMessage, ChatRequest, CompletionRequest
from ..server.schemas import RequestModel
from ..server.tgi_schemas import GenerateRequest
from ..text import TextModel


class Slot(NamedTuple):
    """A text in a request, the field that it came in, and how to put another in its place."""

    text: str
    field: str
    put: Callable[[str], None]


def slots(data: RequestModel, model: TextModel) -> Iterator[Slot]:
    """Yield every text that reaches the model: messages and tool calls, tools, prompts, prompts given as token ids."""
    if isinstance(data, ChatRequest):
        for message in data.messages:
            yield from _message(message)
        yield from _strings(data.chat_template_kwargs, "chat_template_kwargs")
        yield from _strings(data.tools, "tools")
    elif isinstance(data, CompletionRequest):
        yield from _prompts(data, model)
    elif isinstance(data, GenerateRequest):
        field = "prompt" if data.is_short else "inputs"
        yield Slot(data.prompt if data.is_short else data.inputs, field, _setter(data, field))


def _message(message: ChatMessage) -> Iterator[Slot]:
    if isinstance(message.content, str):
        yield Slot(message.content, "messages", _setter(message, "content"))
    else:
        for part in message.content:
            yield Slot(part.text, "messages", _setter(part, "text"))
    yield from _strings(message.model_extra or {}, "messages")


def _prompts(data: CompletionRequest, model: TextModel) -> Iterator[Slot]:
    """Prompts given as token ids are read as text; they stay as they are unless a filter changes that text."""
    prompts: list[Any] = data.prompts
    if not isinstance(data.prompt, str) and data.prompt is not prompts:
        data.prompt = prompts  # one prompt of token ids: a list of one, which means the same
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            put = _setter(data, "prompt") if isinstance(data.prompt, str) else _item_setter(prompts, i)
            yield Slot(prompt, "prompt", put)
        else:
            yield Slot(model.decode(prompt, skip_special_tokens=False), "prompt", _ids_setter(prompts, i, model))


def _strings(value: Any, field: str) -> Iterator[Slot]:
    """Yield the strings in a JSON value, however deep, the names of members among them: templates write those too."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, item in list(items):
            if isinstance(item, str):
                yield Slot(item, field, _item_setter(holder, key))
            elif isinstance(item, dict | list):
                waiting.append(item)
        if isinstance(holder, dict):  # last: a text is put back under the name that it came with
            for name in list(holder):
                yield Slot(name, field, _name_setter(holder, name))


def _setter(holder: Any, name: str) -> Callable[[str], None]:
    return lambda text: setattr(holder, name, text)


def _item_setter(holder: Any, key: Any) -> Callable[[str], None]:
    def put(text: str) -> None:
        holder[key] = text

    return put


def _name_setter(holder: dict[str, Any], name: str) -> Callable[[str], None]:
    def put(text: str) -> None:
        members = [(text if key == name else key, item) for key, item in holder.items()]
        holder.clear()
        holder.update(members)

    return put


def _ids_setter(prompts: list[Any], i: int, model: TextModel) -> Callable[[str], None]:
    def put(text: str) -> None:
        prompts[i] = model.encode(text, add_special_tokens=False)

    return put
