"""Checks that several tests share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .server import Reply


def check_error(reply: Reply, *statuses: int, field: str = "", all_keys: bool = False) -> dict[str, Any]:
    """Check that an answer is OpenAI's error object, names a field, and has one of the statuses; return the object."""
    assert reply.status in statuses, f"status {reply.status} instead of {' or '.join(map(str, statuses))}: {reply.text}"
    assert isinstance(reply.body, dict), f"no JSON object: {reply.text!r}"
    error = reply.body.get("error")
    assert isinstance(error, dict), f'no {{"error": {{...}}}}: {reply.text}'
    assert isinstance(error.get("message"), str) and error["message"], f"no message: {error}"
    assert isinstance(error.get("type"), str) and error["type"], f"no type: {error}"
    if all_keys:
        assert {"param", "code"} <= error.keys(), f"OpenAI's error has param and code, be they null: {error}"
    if field:
        named = str(error.get("param") or "")
        parts = re.split(r"[.\[]", named)
        assert field in parts or field in error["message"], f"{field} is not named: {error}"
    return error


def spells(tokens: Sequence[str | list[int]], text: str) -> bool:
    """Whether tokens, as labels or as bytes, are a text. Special ones need not show, nor parts of characters."""
    spelt = [bytes(token) if isinstance(token, list) else _bytes_of(token) for token in tokens]
    if any(REPLACEMENT in part for part in spelt):
        return True  # a label of this server's does not tell which bytes it stands for
    shown = [part for part in spelt if not _SPECIAL.fullmatch(part)]
    return _plain(text) in (_plain(_decode(spelt)), _plain(_decode(shown)))


REPLACEMENT = "\ufffd".encode()
_SPECIAL = re.compile(rb"<.*>|\[.*\]", re.DOTALL)
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def _bytes_of(label: str) -> bytes:
    """The bytes of a token's label; OpenAI writes those that are no text as bytes:\\xe2\\x82."""
    if label.startswith("bytes:\\x"):
        return bytes(int(digits, 16) for digits in _ESCAPED.findall(label))
    return label.encode()


def _decode(parts: Sequence[bytes]) -> str:
    return b"".join(parts).decode(errors="replace")


def _plain(text: str) -> str:
    """How many replacement characters ill-formed bytes give is for each server to say."""
    return re.sub("\ufffd+", "\ufffd", text)
