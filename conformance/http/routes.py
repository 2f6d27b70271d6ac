"""The two routes that answer, so that a test can be written once for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "Water boils at",
    "def add(a, b):",
    "1, 2, 3, 4, 5,",
    "The quick brown fox",
    "Dear Sir or Madam,",
    "What is the capital of Japan?",
)
"""Prompts that any model makes something of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where to post, and how its bodies differ."""

    name: str
    path: str
    object: str
    chunk: str  # the same, in a stream

    @property
    def is_chat(self) -> bool:
        """Whether it takes a conversation."""
        return self.name == "chat"

    def body(self, prompt: Any, fields: dict[str, Any]) -> dict[str, Any]:
        """Write a request's body."""
        if self.is_chat:
            return {"messages": [{"role": "user", "content": prompt}], **fields}
        return {"prompt": prompt, **fields}

    def text(self, choice: dict[str, Any]) -> str:
        """The text of a whole choice."""
        return (choice["message"]["content"] or "") if self.is_chat else choice["text"]

    def texts(self, answer: dict[str, Any]) -> list[str]:
        """The texts of a whole answer's choices, in order."""
        return [self.text(choice) for choice in sorted(answer["choices"], key=lambda choice: int(choice["index"]))]

    def logprobs(self, count: int) -> dict[str, Any]:
        """The fields that ask for this many alternatives at each position."""
        return {"logprobs": True, "top_logprobs": count} if self.is_chat else {"logprobs": count}


COMPLETIONS = Route(name="completions", path="/v1/completions", object="text_completion", chunk="text_completion")
CHAT = Route(name="chat", path="/v1/chat/completions", object="chat.completion", chunk="chat.completion.chunk")
