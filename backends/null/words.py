"""The answer that stands for a model's: a token that follows from the last one and its position."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ...core.batch import Int32
from ...core.shards import read_json


class Words:
    """The tokens that are answered with: a vocabulary's, but for those that end or mark a text.

    Some stand for parts of characters, so that the text is as hard to put together as a model's.
    """

    def __init__(self, vocab_size: int, without: Collection[int], known: Collection[int] | None = None) -> None:
        """`known` are the ids that the tokenizer has a token for; None: all of them."""
        ids = range(vocab_size) if known is None else sorted(i for i in known if 0 <= i < vocab_size)
        kept = [i for i in ids if i not in without]
        self._ids = np.array(kept or [0], np.int32)  # [W]

    @classmethod
    def of(cls, folder: Path, vocab_size: int, eos_token_ids: Collection[int]) -> Words:
        """Read which tokens a model folder's tokenizer.json has and which are special; without it, none is."""
        file = folder / "tokenizer.json"
        if not file.is_file():
            return cls(vocab_size, eos_token_ids)
        content = read_json(file, missing="a tokenizer is needed")
        vocabulary = content["model"]["vocab"]
        known = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        special = {token["id"] for token in content.get("added_tokens", ()) if token["special"]}
        return cls(vocab_size, special | set(eos_token_ids), known)

    def after(self, tokens: Int32, positions: Int32) -> Int32:
        """Return the tokens [L] that follow `tokens` [L], which stand at `positions` [L]."""
        mixed = tokens.astype(np.uint64) * np.uint64(0x9E3779B1) + positions.astype(np.uint64) * np.uint64(0x85EBCA77)
        mixed ^= mixed >> np.uint64(15)
        mixed = (mixed & np.uint64(0xFFFFFFFF)) * np.uint64(0xC2B2AE35)
        chosen: Int32 = self._ids[(mixed >> np.uint64(13)) % np.uint64(len(self._ids))]
        return chosen

    def answer(self, prompt_ids: Sequence[int], count: int) -> list[int]:
        """Return the first `count` tokens that follow a prompt: what an engine must answer."""
        last, position = np.array(prompt_ids[-1:], np.int32), np.array([len(prompt_ids) - 1], np.int32)
        answer: list[int] = []
        for _ in range(count):
            last = self.after(last, position)
            position = position + np.int32(1)
            answer.append(int(last[0]))
        return answer
