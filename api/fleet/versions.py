"""Versions: a model's contents with the settings that decide its tokens, as one short name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from .settings import ModelSettings

SHOWN_DIGITS = 12
"""Of a version's 64 hexadecimal digits, as it is told: two of a model's versions meet once in 10^14."""

LEAST_DIGITS = 4
"""The shortest prefix that is taken for a version."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one model."""

    name: str
    digest: str  # 64 hexadecimal digits

    @classmethod
    def of(cls, settings: ModelSettings, contents: str) -> Version:
        """Name what a folder with these contents is under these settings."""
        numbers = settings.numbers()
        if not numbers:
            return cls(settings.name, contents)
        told = json.dumps(numbers, sort_keys=True, separators=(",", ":"))
        return cls(settings.name, hashlib.sha256(f"{contents}\n{told}".encode()).hexdigest())

    @property
    def key(self) -> str:
        """How it is addressed: name@version."""
        return f"{self.name}@{self.digest[:SHOWN_DIGITS]}"

    def __str__(self) -> str:
        return self.key


def split_key(text: str) -> tuple[str, str]:
    """Part name@version; the version is empty where there is none."""
    name, _, digits = text.rpartition("@")
    return (name, digits) if name else (text, "")


def find_key(text: str, keys: Iterable[str]) -> list[str]:
    """Return the keys that name@prefix may mean, none where it is no such thing."""
    name, digits = split_key(text)
    if len(digits) < LEAST_DIGITS:
        return []
    shown = digits[:SHOWN_DIGITS].lower()
    return sorted(key for key in set(keys) if key.startswith(f"{name}@{shown}"))
