"""TextModel: the tokenizer, chat template and generation config of one model folder; text in, token ids out, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .sampling_params import SamplingParams

__all__ = ["SamplingParams", "TextModel"]


class TextModel:
    """Everything about a model that concerns text."""

    path: Path
    bos_token_id: int | None
    eos_token_ids: frozenset[int]
    chat_template: str | None  # the default one
    generation_config: Mapping[str, Any]  # generation_config.json as it stands

    @classmethod
    def load(cls, model_dir: Path | str) -> TextModel:
        """Read the folder. Raises CheckpointError naming the file that is missing or damaged."""
        raise NotImplementedError

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text. Leaves other threads free to run: give it a thread when texts are long."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of token ids, exactly as a stream of deltas would have given it."""
        raise NotImplementedError

    def token_text(self, token_id: int) -> str:
        """Return one token's text, for logprobs; bytes that are no text of their own show as U+FFFD."""
        raise NotImplementedError

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token's bytes; those of a text's tokens in a row are the text in UTF-8."""
        raise NotImplementedError

    def default_params(self) -> dict[str, Any]:
        """Return the fields of SamplingParams that generation_config.json sets."""
        raise NotImplementedError

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> str:
        """Return the prompt that the chat template makes of a conversation. Raises ParameterError."""
        raise NotImplementedError

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> list[int]:
        """Return that prompt's token ids. Raises ParameterError."""
        raise NotImplementedError
