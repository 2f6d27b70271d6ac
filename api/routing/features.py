"""Features of a prompt that can be measured before any model has seen it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Question = Literal["none", "fact", "reason"]

_WORD = re.compile(r"\w+")
_CODE_LINE = re.compile(
    r"^\s*(```|(def|class|import|from|return|if|for|while|fn|func|function|const|let|var|public|private|#include|SELECT)\b"
    r"|[{}]\s*$)|[;{]\s*$|\w\(.*\)\s*[:;{]?\s*$|(==|!=|=>|->|&&|\|\|)",
    re.MULTILINE,
)
_FACT = re.compile(r"\b(who|whom|whose|what|which|when|where|how (many|much|old|far|long|tall))\b", re.IGNORECASE)
_REASON = re.compile(
    r"\b(why|how|explain|prove|derive|compare|analy[sz]e|design|plan|debug|refactor|solve|calculate|count|spell"
    r"|reverse|step by step|summari[sz]e|translate)\b",
    re.IGNORECASE,
)
_SAMPLED = 20_000  # characters that are looked at: the first and the last of a long prompt
_LINE = 200  # characters of a line that tell whether it is code: the expression takes quadratic time


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of a request's text. Shares are between 0 and 1."""

    num_characters: int
    num_words: int
    num_turns: int  # messages of a conversation; 1 for a plain prompt
    code: float  # share of lines that look like code
    digits: float  # share of characters
    num_scripts: int  # alphabets that letters come from, such as LATIN and CYRILLIC
    question: Question


def measure(texts: list[str]) -> Features:
    """Measure a request's texts, the last of which asks."""
    whole = "\n".join(texts)
    seen = whole if len(whole) <= _SAMPLED else whole[: _SAMPLED // 2] + whole[-_SAMPLED // 2 :]
    lines = [line for line in seen.splitlines() if line.strip()]
    letters = {character for character in seen if character.isalpha()}
    return Features(
        num_characters=len(whole),
        num_words=len(_WORD.findall(seen)),
        num_turns=max(1, len(texts)),
        code=sum(bool(_CODE_LINE.search(line[:_LINE])) for line in lines) / max(1, len(lines)),
        digits=sum(character.isdigit() for character in seen) / max(1, len(seen)),
        num_scripts=len({unicodedata.name(letter, "UNKNOWN").partition(" ")[0] for letter in letters}),
        question=_question(texts[-1][-_SAMPLED:] if texts else ""),
    )


def _question(text: str) -> Question:
    if not _FACT.search(text) and not _REASON.search(text):
        return "none"
    fact = _FACT.search(text)
    reason = _REASON.search(text)
    if fact is None or reason is None:
        return "reason" if reason else "fact"
    # "How many ..." is a question for a fact, though it holds "how".
    return "reason" if not fact.group().lower().startswith("how") and reason.start() < fact.start() else "fact"
