"""What is asked, and what must come back: computed here, apart from the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from isotoken.api.detokenizer import ByteDetokenizer, Vocabulary
from isotoken.backends.null.words import Words
from isotoken.core.checkpoint import Checkpoint
from tokenizers import Tokenizer

TEXT = (
    "Write a short report on what the harbour master saw that morning: the ships that came in with the tide, the cargo "
    "that was unloaded on the northern quay, the weather over the bay, and who was paid what for it."
)
LONG_TEXT = " the ships came in with the tide and the cargo was unloaded on the quay before noon,"


class Truth:
    """The texts that the null backend's answers must have."""

    def __init__(self, folder: Path) -> None:
        checkpoint = Checkpoint.open(folder)
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._words = Words.of(folder, checkpoint.spec.vocab_size, checkpoint.eos_token_ids)
        self._vocabulary = Vocabulary(self._tokenizer)

    def ids(self, prompt: str) -> list[int]:
        """Return a prompt's token ids."""
        ids: list[int] = self._tokenizer.encode(prompt).ids
        return ids

    def answer(self, prompt: str, num_tokens: int) -> str:
        """Return the text that follows a prompt."""
        text: str = self._tokenizer.decode(self._words.answer(self.ids(prompt), num_tokens))
        return text

    def pieces(self, prompt: str, num_tokens: int) -> list[str]:
        """Return what text each token of the answer completes: "" for one that is only a part of a character."""
        detokenizer = ByteDetokenizer(self._vocabulary, skip_special_tokens=True, at_start=False)
        return [detokenizer.push(token) for token in self._words.answer(self.ids(prompt), num_tokens)]

    def long_prompt(self, num_tokens: int) -> str:
        """Return a text of about so many tokens, and not fewer."""
        repeated = len(self.ids(LONG_TEXT * 10)) / 10
        return LONG_TEXT * (int(1.01 * num_tokens / repeated) + 1)


def prompt(number: int | str) -> str:
    """Return a prompt that no prefix cache has seen under another number."""
    return f"{number}. {TEXT}"


def completion(prompt: str, num_tokens: int, **more: Any) -> bytes:
    """Return the body of a completion request."""
    return json.dumps({"model": "load", "prompt": prompt, "max_tokens": num_tokens, "temperature": 0, **more}).encode()


def http(host: str, path: str, body: bytes) -> bytes:
    """Return a whole HTTP request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
