"""Tokens to text, one at a time: what the deltas add up to is exactly what decoding all tokens at once gives."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, Protocol

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space
MAX_ID = 2**31  # beyond, the library raises errors of its own
_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer(Protocol):
    """Turns one sequence of tokens into text as they come."""

    def push(self, token_id: int) -> str:
        """Return the text that this token completes, maybe none."""
        ...

    def extend(self, token_ids: Sequence[int]) -> str:
        """Return what these tokens complete: as `push`, one by one, and joined."""
        ...

    def flush(self) -> str:
        """Return what is still held: bytes that never became a character show as U+FFFD."""
        ...


class _Known(dict[int, bytes]):
    """The bytes of the tokens that were asked for. A number without a token is not kept: a client may name any."""

    def __init__(self, look_up: Callable[[int], bytes | None]) -> None:
        self._look_up = look_up

    def __missing__(self, token_id: int) -> bytes:
        found = self._look_up(token_id)
        if found is None:
            return b""
        self[token_id] = found
        return found


class Vocabulary:
    """The bytes of each token, for tokenizers whose text is the bytes of its tokens in a row (nearly all).

    A text's bytes are decoded as UTF-8, each ill-formed stretch giving U+FFFD as Unicode recommends.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known = _Known(self._look_up)
        added = tokenizer.get_added_tokens_decoder() if hasattr(tokenizer, "get_added_tokens_decoder") else {}
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        parts = _decoder_parts(tokenizer)
        kinds = [part["type"] for part in parts]
        self._byte_level = kinds == ["ByteLevel"]
        self._byte_fallback = "ByteFallback" in kinds
        self._marks = _space_marks(parts)
        self.is_bytes = self._byte_level or (
            bool(parts)
            and set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
            and all(part.get("content", " ") == " " for part in parts)
        )
        self.drops_first_mark = any(p["type"] == "Metaspace" and p.get("prepend_scheme") != "never" for p in parts)
        self.strip_start = sum(part.get("start", 0) for part in parts if part["type"] == "Strip")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for; none for an id without a token."""
        return self._known[token_id]

    @property
    def bytes_of(self) -> Callable[[int], bytes]:
        """What `token_bytes` says, for whoever asks often."""
        return self._known.__getitem__

    def _look_up(self, token_id: int) -> bytes | None:
        token = self._tokenizer.id_to_token(token_id) if 0 <= token_id < MAX_ID else None
        return None if token is None else self._read(token)

    def _read(self, token: str) -> bytes:
        if self._byte_level:
            table = _byte_of_character()
            if all(character in table for character in token):
                return bytes(table[character] for character in token)
        elif self._byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        for mark, text in self._marks:
            token = token.replace(mark, text)
        return bytes(token, "utf-8")


class ByteDetokenizer:
    """Joins token bytes and decodes UTF-8 as it goes: a character is given out when its last byte is there."""

    def __init__(
        self, vocabulary: Vocabulary, *, skip_special_tokens: bool, at_start: bool, shown: Collection[int] = ()
    ) -> None:
        self._bytes_of = vocabulary.bytes_of
        skipped = vocabulary.special_ids if skip_special_tokens else frozenset()
        self._skipped = skipped.difference(shown) if shown else skipped
        self._decode = _Utf8Decoder("replace").decode
        # Some tokenizers put a space before a text and take it off again: where it starts, not where it goes on.
        self._strip = vocabulary.strip_start if at_start else 0
        self._drop_marks = vocabulary.drops_first_mark and at_start

    def push(self, token_id: int) -> str:
        """Return the text that this token completes."""
        if token_id in self._skipped:
            return ""
        data = self._bytes_of(token_id)
        if self._drop_marks:
            data, self._drop_marks = data.lstrip(b" "), False
        return self._stripped(self._decode(data))

    def extend(self, token_ids: Sequence[int]) -> str:
        """Return what these tokens complete."""
        if self._drop_marks:
            return "".join([self.push(token_id) for token_id in token_ids])
        skipped, bytes_of = self._skipped, self._bytes_of
        return self._stripped(self._decode(b"".join([bytes_of(i) for i in token_ids if i not in skipped])))

    def flush(self) -> str:
        """Return what is still held."""
        return self._stripped(self._decode(b"", True))

    def _stripped(self, text: str) -> str:
        while self._strip and text:
            if text[0] != " ":
                self._strip = 0
            else:
                text, self._strip = text[1:], self._strip - 1
        return text


class WindowDetokenizer:
    """For any other tokenizer: decodes a short window again and gives out what it grew by."""

    def __init__(self, tokenizer: Any, *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window: list[int] = []
        self._shown = 0  # tokens of the window whose text was given out

    def push(self, token_id: int) -> str:
        """Return the text that this token completes."""
        if 0 <= token_id < MAX_ID:
            self._window.append(token_id)
        return self._grown(final=False)

    def extend(self, token_ids: Sequence[int]) -> str:
        """Return what these tokens complete."""
        return "".join([self.push(token_id) for token_id in token_ids])

    def flush(self) -> str:
        """Return what is still held."""
        return self._grown(final=True)

    def _grown(self, *, final: bool) -> str:
        before = self._decode(self._window[: self._shown])
        after = self._decode(self._window)
        if len(after) <= len(before) or (after.endswith(REPLACEMENT) and not final):
            return ""
        # Keep the tokens of the last text: how a token reads may depend on the one before it.
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        return after[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=self._skip)
        return text


def _decoder_parts(tokenizer: Any) -> list[dict[str, Any]]:
    """Return the tokenizer's decoder as a flat list of its parts, as tokenizer.json writes them."""
    decoder = getattr(tokenizer, "decoder", None)
    if decoder is None:
        return []
    part = json.loads(decoder.__getstate__())
    return list(part["decoders"]) if part["type"] == "Sequence" else [part]


def _space_marks(parts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    marks = []
    for part in parts:
        if part["type"] == "Metaspace":
            marks.append((part.get("replacement", SPACE_MARK), " "))
        elif part["type"] == "Replace" and isinstance(part["pattern"], dict) and "String" in part["pattern"]:
            marks.append((part["pattern"]["String"], part["content"]))
    return marks


@cache
def _byte_of_character() -> dict[str, int]:
    """Return the byte that each character stands for in byte-level vocabularies.

    Printable Latin-1 bytes stand for themselves, the 68 others for the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
