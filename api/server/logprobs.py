"""Log-probabilities in the three shapes that clients read: OpenAI's legacy, OpenAI's chat, and vLLM's for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.types import TokenLogprobs
from ..text import TextModel

FLOOR = -9999.0  # stands for minus infinity, which JSON cannot say


def token_label(text: TextModel, token_id: int, as_ids: bool = False) -> str:
    """Name a token: its text, its bytes where they are no text of their own, or its id."""
    if as_ids:
        return f"token_id:{token_id}"
    label = text.token_text(token_id)
    if "\ufffd" in label:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text.token_bytes(token_id))
    return label


class LegacyLogprobs:
    """OpenAI's completions shape, for one choice; keeps count of where in the choice's text each token begins."""

    def __init__(self, text: TextModel, *, as_ids: bool, skip_special_tokens: bool, echo: bool) -> None:
        self._text = text
        self._as_ids = as_ids
        self._detokenizer = text.detokenizer(skip_special_tokens=skip_special_tokens, at_start=echo)
        self._offset = 0

    def first(self, token_id: int) -> dict[str, list[Any]]:
        """Return the shape with the prompt's first token, which nothing predicts."""
        shape: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        self._append(shape, token_id, None, None)
        return shape

    def extend(
        self,
        tokens: Sequence[TokenLogprobs],
        shape: dict[str, list[Any]] | None = None,
        offsets: Sequence[int] | None = None,
    ) -> dict[str, list[Any]]:
        """Add tokens to a shape, or to a new one, and return it. `offsets`: where they begin, where that is known."""
        if shape is None:
            shape = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for i, token in enumerate(tokens):
            if offsets:
                self._offset = offsets[i]
            top = {self._label(token.token_id): clamp(token.logprob)}
            for token_id, logprob in token.top:
                top.setdefault(self._label(token_id), clamp(logprob))
            self._append(shape, token.token_id, clamp(token.logprob), top)
        return shape

    def _label(self, token_id: int) -> str:
        return token_label(self._text, token_id, self._as_ids)

    def _append(
        self, shape: dict[str, list[Any]], token_id: int, logprob: float | None, top: dict[str, float] | None
    ) -> None:
        shape["tokens"].append(self._label(token_id))
        shape["token_logprobs"].append(logprob)
        shape["top_logprobs"].append(top)
        shape["text_offset"].append(self._offset)
        self._offset += len(self._detokenizer.push(token_id))


def chat_logprobs(text: TextModel, tokens: Sequence[TokenLogprobs], *, as_ids: bool = False) -> dict[str, Any]:
    """Return OpenAI's chat shape: each token with its bytes and its alternatives."""

    def item(token_id: int, logprob: float) -> dict[str, Any]:
        label = f"token_id:{token_id}" if as_ids else text.token_text(token_id)
        return {"token": label, "logprob": clamp(logprob), "bytes": list(text.token_bytes(token_id))}

    content = [
        {**item(token.token_id, token.logprob), "top_logprobs": [item(*pair) for pair in token.top]} for token in tokens
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(text: TextModel, tokens: Sequence[TokenLogprobs]) -> list[dict[str, Any] | None]:
    """Return vLLM's shape: null for the first token, then {token id: {logprob, rank, decoded_token}} for each."""
    positions: list[dict[str, Any] | None] = [None]
    for token in tokens:
        position = {
            str(token_id): {"logprob": clamp(logprob), "rank": rank, "decoded_token": text.token_text(token_id)}
            for rank, (token_id, logprob) in enumerate(token.top, start=1)
        }
        own = {"logprob": clamp(token.logprob), "rank": token.rank, "decoded_token": text.token_text(token.token_id)}
        positions.append({str(token.token_id): own, **position})
    return positions


def clamp(logprob: float) -> float:
    """Keep a log-probability within what JSON can say."""
    return max(logprob, FLOOR)
