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


def spells(tokens: Sequence[str], text: str) -> bool:
    """Whether tokens put together are a text. Special tokens and parts of characters need not show in it."""
    rest = text
    for token in tokens:
        if rest.startswith(token):
            rest = rest[len(token) :]
        elif not _is_hidden(token):
            return False
    return not rest or "\ufffd" in text


def _is_hidden(token: str) -> bool:
    return bool(re.fullmatch(r"bytes:.*|<.*>|\[.*\]", token, re.DOTALL)) or "\ufffd" in token or not token
